"""The HTTP client of everything that leaves the machine: traced, and connected to checked addresses only.

A name is resolved once for each connection, every address of the answer is checked, and the connection goes to a
checked address itself; the URL keeps its name, so Host, SNI and the certificate are those of the name. A name that
changes its answer between check and connection (DNS rebinding) therefore gains nothing, and neither do numeric forms
of an address such as 2130706433 or 0177.0.0.1: they are names like any other until the resolver has spoken.
"""

import asyncio
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import httpcore
import httpx

from services.shared import tracing

Resolver = Callable[[str, int], Awaitable[Sequence[str]]]
_SocketOptions = Iterable[tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]]

# IANA's special-purpose registry. Written out, since ipaddress.is_global calls multicast global and its list changes
# with the Python release.
_REFUSED_V4 = tuple(
    IPv4Network(network)
    for network in (
        *(
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
        ),
        *(
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
        ),
        *("203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        "168.63.129.16/32",  # Azure's metadata and DNS service stands on a public address
    )
)
# Only global unicast is let in, which leaves out loopback, mapped, NAT64, unique-local, link-local and multicast.
_ADMITTED_V6 = IPv6Network("2000::/3")
_REFUSED_V6 = tuple(
    # protocol assignments with Teredo and ORCHID, documentation, 6to4, documentation
    IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)

# Below the idle time-out of common servers (Node.js: 5 s), so that a kept connection is rarely one they just closed.
_KEEP_ALIVE_SECONDS = 2.0
# A name with more addresses than this is tried at the first ones only; all of them are checked.
_MAX_ADDRESSES_TRIED = 4
# Neither crosses the border: what others put into them is not ours to publish.
_NOT_SENT = frozenset({b"baggage", b"tracestate", b"traceparent", b"x-trace-id"})
# Bodies are kept as they came (a compressed one could unpack to a thousand times its size), and the client has no
# memory from one destination to the next.
_NOT_KEPT = frozenset({b"content-encoding", b"content-length", b"transfer-encoding", b"set-cookie"})


class AddressRefused(httpx.TransportError):
    """The address is not a public one."""  # and is not told: the answer of our resolver is no business of a tenant's


def is_admitted(address: str, *, allow_private: bool = False) -> bool:
    """Whether a connection may go to an address; allow_private adds loopback and nothing else."""
    try:
        parsed: IPv4Address | IPv6Address = ip_address(address)
    except ValueError:
        return False
    if allow_private and parsed.is_loopback:
        return True
    if isinstance(parsed, IPv4Address):
        return not any(parsed in network for network in _REFUSED_V4)
    return parsed in _ADMITTED_V6 and not any(parsed in network for network in _REFUSED_V6)


async def resolve_name(host: str, port: int) -> Sequence[str]:
    """The addresses of a name; raises OSError or UnicodeError when it has none.

    One daemon thread a lookup: a name server that hangs then takes no slot of a shared pool from other names and
    does not hold the process at exit.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[Sequence[str]] = loop.create_future()

    def settle(found: Sequence[str] | Exception) -> None:
        if answer.done():
            return
        if isinstance(found, Exception):
            answer.set_exception(found)
        else:
            answer.set_result(found)

    def look_up() -> None:
        found: Sequence[str] | Exception
        try:
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        except (OSError, UnicodeError) as error:
            found = error
        with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
            loop.call_soon_threadsafe(settle, found)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    return await answer


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Opens connections to checked addresses."""

    def __init__(self, resolve: Resolver, *, allow_private: bool) -> None:
        self._resolve = resolve
        self._allow_private = allow_private
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: _SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = (await self._checked(host, port))[:_MAX_ADDRESSES_TRIED]
        share = None if timeout is None else timeout / len(addresses)
        for address in addresses[:-1]:
            with suppress(httpcore.ConnectError, httpcore.ConnectTimeout):
                return await self._inner.connect_tcp(address, port, share, local_address, socket_options)
        return await self._inner.connect_tcp(addresses[-1], port, share, local_address, socket_options)

    async def _checked(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the name does not resolve") from error
        if not addresses:
            raise httpcore.ConnectError("the name does not resolve")
        if not all(is_admitted(address, allow_private=self._allow_private) for address in addresses):
            raise AddressRefused(str(AddressRefused.__doc__))
        return addresses


class _Transport(httpx.AsyncBaseTransport):
    """Sends one request within a total deadline and reads at most so much of the answer's body."""

    def __init__(
        self,
        pool: httpcore.AsyncConnectionPool,
        *,
        deadline_seconds: float,
        max_body_bytes: int,
    ) -> None:
        self._pool = pool
        self._deadline_seconds = deadline_seconds
        self._max_body_bytes = max_body_bytes

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        deadline = asyncio.get_running_loop().time() + self._deadline_seconds
        try:
            async with asyncio.timeout_at(deadline):
                response = await self._pool.handle_async_request(_outgoing(request))
        except (TimeoutError, httpcore.TimeoutException) as error:
            raise httpx.TimeoutException(f"no answer within {self._deadline_seconds:g} s", request=request) from error
        except httpcore.NetworkError as error:
            raise httpx.NetworkError(str(error) or type(error).__name__, request=request) from error
        except (httpcore.ProtocolError, httpcore.UnsupportedProtocol) as error:
            raise httpx.ProtocolError(str(error) or type(error).__name__, request=request) from error
        body = bytearray()
        # The status has been given: a body that breaks off or drips past the deadline does not take it back.
        with suppress(
            TimeoutError,
            httpcore.TimeoutException,
            httpcore.NetworkError,
            httpcore.ProtocolError,
        ):
            async with asyncio.timeout_at(deadline):
                async for chunk in response.aiter_stream():
                    body += chunk
                    if len(body) >= self._max_body_bytes:
                        break
        await response.aclose()
        headers = [(name, value) for name, value in response.headers if name.lower() not in _NOT_KEPT]
        return httpx.Response(
            response.status,
            headers=headers,
            content=bytes(body[: self._max_body_bytes]),
        )

    async def aclose(self) -> None:
        await self._pool.aclose()


def _outgoing(request: httpx.Request) -> httpcore.Request:
    headers = [(name, value) for name, value in request.headers.raw if name.lower() not in _NOT_SENT]
    context = tracing.current()
    if context is not None:
        headers.append((b"X-Trace-ID", context.trace_id.encode()))
        headers.append((b"traceparent", tracing.format_traceparent(context).encode()))
    url = request.url
    return httpcore.Request(
        method=request.method,
        url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
        headers=headers,
        content=request.stream,
        extensions=request.extensions,
    )


def traced_client(
    *,
    allow_private: bool = False,
    timeout_seconds: float = 10.0,
    max_body_bytes: int = 65536,
    resolve: Resolver = resolve_name,
    ssl_context: ssl.SSLContext | None = None,
) -> httpx.AsyncClient:
    """A client for requests to addresses that others chose; raises AddressRefused and httpx.TransportError.

    timeout_seconds: from the first byte of the request to the last of the answer.  max_body_bytes: what is read of an
    answer; the rest is dropped.  allow_private: loopback is admitted too, no other private address.
    """
    pool = httpcore.AsyncConnectionPool(
        ssl_context=ssl_context or httpx.create_ssl_context(trust_env=False),
        max_connections=None,
        keepalive_expiry=_KEEP_ALIVE_SECONDS,
        network_backend=_CheckedBackend(resolve, allow_private=allow_private),
    )
    return httpx.AsyncClient(
        transport=_Transport(pool, deadline_seconds=timeout_seconds, max_body_bytes=max_body_bytes),
        timeout=httpx.Timeout(timeout_seconds),
        headers={"accept-encoding": "identity", "user-agent": "Pulse"},
        follow_redirects=False,
        trust_env=False,
    )
