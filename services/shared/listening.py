"""An application on a socket: bound before it is served, so that who cannot listen says so at once."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

import h11
import orjson
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from services.shared import tracing

log = logging.getLogger(__name__)

# All headers of a request together. h11's own limit of 16 KB is below the longest token that may be configured
# (PULSE_OIDC_MAX_TOKEN_BYTES), which leaves room for the other headers here.
MOST_HEADER_BYTES = 64 * 1024


class CannotListen(Exception):
    """The address is taken or not this machine's."""


class ProblemProtocol(H11Protocol):
    """Uvicorn's HTTP, whose answer to a request that no application gets to see is problem+json too."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Answer a malformed request with 400, one whose head is too long with 431, and close the connection."""
        # Uvicorn calls it while it handles h11's error, which knows the status.
        status = HTTPStatus(getattr(sys.exc_info()[1], "error_status_hint", 400))
        trace_id = tracing.start().trace_id
        too_long = status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        body = {
            "type": f"urn:pulse:problem:{status.phrase.lower().replace(' ', '-')}",
            "title": status.phrase,
            "status": int(status),
            "detail": f"Headers may have {MOST_HEADER_BYTES} bytes." if too_long else "This is not HTTP/1.1.",
            "trace_id": trace_id,
        }
        log.info("request refused before it was read", extra={"status_code": int(status), "trace_id": trace_id})
        headers = [
            ("content-type", "application/problem+json"),
            ("x-trace-id", trace_id),
            ("connection", "close"),
        ]
        response = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        for event in (response, h11.Data(data=orjson.dumps(body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to the process it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """A socket on the address. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Of a socket that does not say TCP, asyncio leaves Nagle's algorithm on: it holds the body of every answer on a
    # connection that is kept back, until the client's delayed acknowledgement of the headers, for 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listening


def by_port(port: int, there: ASGIApp, elsewhere: ASGIApp) -> ASGIApp:
    """Two applications on one server, told apart by the connection's local port, which no header can change."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        await (there if server is not None and server[1] == port else elsewhere)(scope, receive, send)

    return app


async def serve_on(sockets: list[socket.socket], app: ASGIApp, *, stop: asyncio.Event) -> None:
    """Serve until stop is set, then let running requests end (at most 5 s)."""
    config = uvicorn.Config(
        app,
        http=ProblemProtocol,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=sockets), name="http-server")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopping
    if not stop.is_set():
        raise RuntimeError("the server ended by itself")
