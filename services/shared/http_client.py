"""The HTTP client of all outgoing requests: traced, and connected only to checked addresses.

A name is resolved once for each connection, and every address of the answer is checked. The connection goes to a
checked address, and the URL keeps its name, so Host, SNI and the certificate belong to the name. Therefore a name that
changes its answer between check and connection (DNS rebinding) gains nothing. Numeric forms of an address, such as
2130706433 or 0177.0.0.1, are resolved and checked like names.

The same holds for an egress proxy: Pulse resolves and checks the name itself and requests a tunnel to the checked
address. Only for addresses that operators configured (trusted) the proxy gets the name and resolves it.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field

import httpcore
import httpx

from services.shared import otlp, tracing
from services.shared.destination import is_admitted
from services.shared.egress import DIRECT, Egress, Proxy

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
_SocketOptions = Iterable[tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]]

# Below the idle time-out of common servers (Node.js: 5 s), so that a reused connection is rarely closed already.
_KEEP_ALIVE_SECONDS = 2.0
# Only the first addresses of a name are tried, but every address is checked.
_MAX_ADDRESSES_TRIED = 4
_NOT_SENT = frozenset({b"baggage", b"tracestate", b"traceparent", b"x-trace-id"})
# A body is not unpacked, because it may expand to a thousand times its size, and cookies are dropped.
_NOT_KEPT = frozenset({b"content-encoding", b"content-length", b"transfer-encoding", b"set-cookie"})


# The message does not name the address: tenants must not learn the answers of our resolver.
class AddressRefused(httpx.TransportError):
    """The address is not a public one."""


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """Return the addresses of a name. Raises OSError or UnicodeError if it has none.

    Each lookup has its own daemon thread, so a hanging name server blocks neither other lookups nor the exit.
    """
    answer: Future[Sequence[str]] = Future()
    answer.set_running_or_notify_cancel()  # so that a canceled caller does not disturb the thread

    def look_up() -> None:
        try:
            answer.set_result([str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)])
        except (OSError, UnicodeError) as error:
            answer.set_exception(error)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    return await asyncio.wrap_future(answer)


@dataclass(frozen=True)
class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses, through the egress proxy if there is one."""

    resolve: Resolver
    allow_private: bool
    trusted: bool
    egress: Egress
    ssl_context: ssl.SSLContext
    inner: httpcore.AsyncNetworkBackend = field(default_factory=httpcore.AnyIOBackend)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        proxy = self.egress.proxy_for(host)
        if proxy is not None and self.trusted:
            targets: Sequence[str] = [host]
        else:
            targets = (await self._checked(host, port))[:_MAX_ADDRESSES_TRIED]
        share = None if timeout is None else timeout / len(targets)
        for place, target in enumerate(targets, start=1):
            try:
                if proxy is not None:
                    return await self._through(proxy, target, port, share)
                return await self.inner.connect_tcp(target, port, share, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if place == len(targets):
                    raise
        raise AssertionError("a name without addresses does not resolve")

    async def _through(
        self, proxy: Proxy, target: str, port: int, seconds: float | None
    ) -> httpcore.AsyncNetworkStream:
        """Open a tunnel. The proxy may have any address, because operators choose it."""
        stream = await self._reach(proxy, seconds)
        try:
            if proxy.tls:
                stream = await stream.start_tls(self.ssl_context, proxy.host, seconds)
            return await proxy.open_tunnel(stream, target, port, seconds=seconds)
        except BaseException as error:
            with suppress(httpcore.NetworkError, httpcore.TimeoutException, OSError):
                await stream.aclose()
            if isinstance(error, httpcore.NetworkError) and not isinstance(error, httpcore.ConnectError):
                raise httpcore.ConnectError(f"the egress proxy broke off: {error}") from error
            raise

    async def _reach(self, proxy: Proxy, seconds: float | None) -> httpcore.AsyncNetworkStream:
        try:
            addresses = list(dict.fromkeys(await self.resolve(proxy.host, proxy.port)))[:_MAX_ADDRESSES_TRIED]
        except (OSError, UnicodeError):
            addresses = []
        for address in addresses:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self.inner.connect_tcp(address, proxy.port, seconds)
        raise httpcore.ConnectError("the egress proxy cannot be reached")

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = list(dict.fromkeys(await self.resolve(host, port)))
        except (OSError, UnicodeError):
            addresses = []
        if not addresses:
            raise httpcore.ConnectError("the name does not resolve")
        if not self.trusted and not all(is_admitted(found, allow_private=self.allow_private) for found in addresses):
            raise AddressRefused(str(AddressRefused.__doc__))
        return addresses


@dataclass(frozen=True)
class _Transport(httpx.AsyncBaseTransport):
    """Sends one request within a total deadline, and limits the bytes that are read of the answer."""

    pool: httpcore.AsyncConnectionPool
    deadline_seconds: float
    max_body_bytes: int
    trusted: bool

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        context = tracing.for_call()
        url = request.url
        port = url.port or (80 if url.scheme == "http" else 443)
        with otlp.call(context, request.method, url.host, port) as answered:
            response = await self._send(request, context)
            answered(response.status_code)
        return response

    async def _send(self, request: httpx.Request, context: tracing.TraceContext) -> httpx.Response:
        deadline = asyncio.get_running_loop().time() + self.deadline_seconds
        sent = False

        async def watch(event: str, _info: object) -> None:
            nonlocal sent
            sent = sent or event.endswith("send_request_headers.started")

        outgoing = _outgoing(request, context, trusted=self.trusted)
        outgoing.extensions = {**outgoing.extensions, "trace": watch}
        try:
            async with asyncio.timeout_at(deadline):
                response = await self.pool.handle_async_request(outgoing)
        except (TimeoutError, httpcore.TimeoutException) as error:
            # A caller that retries must know whether the request may have arrived.
            timed_out = httpx.TimeoutException if sent else httpx.ConnectTimeout
            raise timed_out(f"no answer within {self.deadline_seconds:g} s") from error
        except httpcore.NetworkError as error:
            failed = httpx.NetworkError if sent else httpx.ConnectError
            raise failed(str(error) or type(error).__name__) from error
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise httpx.ProtocolError(str(error) or type(error).__name__) from error
        try:
            body = await self._read(response, deadline)
        finally:
            await response.aclose()
        kept = [(name, value) for name, value in response.headers if name.lower() not in _NOT_KEPT]
        return httpx.Response(response.status, headers=kept, content=body)

    async def _read(self, response: httpcore.Response, deadline: float) -> bytes:
        """Return the beginning of the body. A body that breaks off or is too slow does not change the outcome."""
        body = bytearray()
        with suppress(TimeoutError, httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
            async with asyncio.timeout_at(deadline):
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) >= self.max_body_bytes:
                        break
        return bytes(body[: self.max_body_bytes])

    async def aclose(self) -> None:
        await self.pool.aclose()


def _outgoing(request: httpx.Request, context: tracing.TraceContext, *, trusted: bool) -> httpcore.Request:
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _NOT_SENT]
    headers.append((b"X-Trace-ID", context.trace_id.encode()))
    headers.append((b"traceparent", tracing.format_traceparent(context).encode()))
    # The tracestate of a caller is for services that operators chose, not for a customer's webhook.
    if trusted and context.tracestate is not None:
        headers.append((b"tracestate", context.tracestate.encode()))
    url = request.url
    target = httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path)
    return httpcore.Request(
        request.method, target, headers=headers, content=request.stream, extensions=request.extensions
    )


def traced_client(
    *,
    allow_private: bool = False,
    trusted: bool = False,
    timeout_seconds: float = 10.0,
    max_body_bytes: int = 65536,
    resolve: Resolver = resolve_name,
    ssl_context: ssl.SSLContext | None = None,
    egress: Egress = DIRECT,
) -> httpx.AsyncClient:
    """Return a client for outgoing requests. Its requests raise AddressRefused and httpx.TransportError.

    After ConnectError and ConnectTimeout, no part of the request has been sent.

    timeout_seconds: from the first byte of the request to the last of the answer.  max_body_bytes: number of bytes that
    are read of an answer.  allow_private: admit loopback, but no other private address.  trusted: admit every address,
    for those that only operators can configure (an issuer, our own services).  egress: proxy and extra certificate
    authorities.
    """
    context = ssl_context or egress.ssl_context()
    pool = httpcore.AsyncConnectionPool(
        ssl_context=context,
        max_connections=None,
        keepalive_expiry=_KEEP_ALIVE_SECONDS,
        network_backend=_CheckedBackend(resolve, allow_private, trusted, egress, context),
    )
    return httpx.AsyncClient(
        transport=_Transport(pool, timeout_seconds, max_body_bytes, trusted),
        timeout=httpx.Timeout(timeout_seconds),
        headers={"accept-encoding": "identity", "user-agent": "Pulse"},
        follow_redirects=False,
        trust_env=False,
    )
