"""Serving of an application on sockets that are bound before, so that a taken port is reported at once."""

import asyncio
import contextlib
import logging
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import cast

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp, Receive, Scope, Send

from services.shared.door import Acceptor, Door, DoorProtocol, Limits, ManySmallChunks
from services.shared.logging import tell_repeats
from services.shared.web import ServerTls

TICK_SECONDS = 1.0

log = logging.getLogger(__name__)

# Limit on all headers of a request together. h11's default of 16 KB is below the longest token that may be configured
# (PULSE_OIDC_MAX_TOKEN_BYTES). This leaves room for the other headers.
MOST_HEADER_BYTES = 64 * 1024


class CannotListen(Exception):
    """An address that is taken or does not belong to this machine."""


class ProblemProtocol(DoorProtocol):
    """HTTP/1.1 that answers malformed requests with problem+json."""

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  # uvicorn's signature
        """Answer a malformed request with 400 or a too long head with 431, and close the connection."""
        # Uvicorn calls this while it handles h11's error, which has the status.
        error = sys.exc_info()[1]
        status = HTTPStatus(getattr(error, "error_status_hint", 400))
        detail = "This is not HTTP/1.1."
        if status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE:
            detail = f"Headers may have {MOST_HEADER_BYTES} bytes."
        elif isinstance(error, ManySmallChunks):
            detail = "The chunks of the body are too small: send fewer and longer ones, or a Content-Length."
        trace_id = self.send_problem(status, status.phrase, detail)
        log.info("request refused before it was read", extra={"status_code": int(status), "trace_id": trace_id})


class _Server(uvicorn.Server):
    """A uvicorn server that accepts through a door and leaves the signals to its process.

    shared: an event before which the first socket does not accept, because another process serves its port.
    """

    def __init__(self, config: uvicorn.Config, door: Door, shared: asyncio.Event | None) -> None:
        super().__init__(config)
        self._door = door
        self._shared = shared

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept on the sockets, for which uvicorn itself opens no server."""
        await super().startup(sockets=[])
        assert sockets
        first, *others = sockets
        for listening in others:
            self._accept(listening)
        if self._shared is None:
            self._accept(first)
        else:
            self._joining = asyncio.create_task(self._join(first, self._shared), name="shared-port")

    async def _join(self, listening: socket.socket, ready: asyncio.Event) -> None:
        await ready.wait()
        self._accept(listening)

    def _accept(self, listening: socket.socket) -> None:
        loop, config = asyncio.get_running_loop(), self.config
        protocol = cast("type[DoorProtocol]", config.http_protocol_class)
        make_protocol = partial(protocol, config, self.server_state, self.lifespan.state)
        serve = partial(loop.connect_accepted_socket, make_protocol, ssl=config.ssl)
        self.servers.append(cast("asyncio.Server", Acceptor(listening, self._door, serve)))

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int, *, reuse_port: bool = False) -> socket.socket:
    """Open a socket on the address; with reuse_port, other processes may open theirs. Raises CannotListen."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio disables Nagle's algorithm only on sockets whose protocol is TCP. With it, the body of an answer on a
    # persistent connection would wait 40 ms for the client's delayed acknowledgment of the headers.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if reuse_port:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listening


def by_port(port: int, there: ASGIApp, elsewhere: ASGIApp) -> ASGIApp:
    """Return an application that selects one of two by the local port of the connection, which no header can change."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        server = scope.get("server")
        await (there if server is not None and server[1] == port else elsewhere)(scope, receive, send)

    return app


async def _tick(door: Door) -> None:
    """Close late connections and log the counts of repeated lines once a second."""
    while True:
        await asyncio.sleep(TICK_SECONDS)
        door.tick()
        tell_repeats()


def _configure(app: ASGIApp, door: Door, tls: ServerTls | None) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(ProblemProtocol, door=door)),
        log_config=None,
        access_log=False,
        lifespan="off",
        ws="none",
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MOST_HEADER_BYTES,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=door.limits.idle_seconds,
    )
    config.load()
    if tls is not None:
        config.ssl = tls.context
    return config


async def serve_on(
    sockets: list[socket.socket],
    app: ASGIApp,
    *,
    stop: asyncio.Event,
    limits: Limits | None = None,
    registry: CollectorRegistry | None = None,
    tls: ServerTls | None = None,
    shared: asyncio.Event | None = None,
) -> None:
    """Serve sockets of bind() until stop is set, then wait up to 5 s for running requests.

    shared: an event before which the first socket accepts nothing.
    """
    door = Door(limits or Limits(), registry)
    server = _Server(_configure(app, door, tls), door, shared)
    serving = asyncio.create_task(server.serve(sockets=sockets), name="http-server")
    tasks = [asyncio.create_task(_tick(door), name="door")]
    if tls is not None:
        tasks.append(asyncio.create_task(tls.watch(), name="tls"))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        for task in (*tasks, stopping):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
    if not stop.is_set():
        raise RuntimeError("the server ended by itself")
