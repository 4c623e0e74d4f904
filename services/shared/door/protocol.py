"""Uvicorn's HTTP/1.1 with deadlines for clients, and with answers that do not need the application."""

import asyncio
from typing import Any

import h11
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol, RequestResponseCycle
from uvicorn.server import ServerState

from services.shared.door.doorman import Door
from services.shared.door.framing import MOST_HEADER_LINES, BoundedConnection
from services.shared.door.guest import Guest
from services.shared.door.problem import busy_problem, problem
from services.shared.web import PROBE_PATHS, has_path

# Most bytes of a body that are read after an early answer. Closing with unread data would reset the connection
# before the client reads the answer.
_MOST_UNREAD_BYTES = 16 * 1024 * 1024


class DoorProtocol(H11Protocol):
    """A connection that reports to its door when, and for what, it waits for its client."""

    transport: asyncio.Transport

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        door: Door,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.conn: BoundedConnection = BoundedConnection(h11.SERVER, config.h11_max_incomplete_event_size or 65_536)
        self._door = door
        self._limits = door.limits
        self._waits_for: str | None = "head"
        self._unread = 0
        self._guest: Guest

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Take the place that the acceptor got for the connection."""
        super().connection_made(transport)
        self._guest = self._door.guests[transport.get_extra_info("socket").fileno()]
        self._guest.held = self
        if self._guest.is_gone:
            transport.abort()
        elif self._door.is_extra(self._guest):
            self.app = self._probes_only

    def data_received(self, data: bytes) -> None:
        """Read the data, and note what is still missing."""
        self._guest.has_sent = False
        if self.conn.their_state is h11.IDLE and not self.conn.count_lines(data):
            self.send_problem(431, "Request Header Fields Too Large", f"A head may have {MOST_HEADER_LINES} lines.")
            return
        super().data_received(data)
        self._note(len(data))

    def on_response_complete(self) -> None:
        """Wait for the next request."""
        self._unread = 0
        super().on_response_complete()
        self._note(0)

    def _should_upgrade(self) -> bool:
        """Ignore an Upgrade header. Uvicorn would log two warnings for each, with which a client could fill the log."""
        return False

    def pause_writing(self) -> None:
        """Start to wait until the client reads."""
        super().pause_writing()
        self._wait("send", self._limits.send_seconds)

    def resume_writing(self) -> None:
        """Stop waiting for the client to read."""
        super().resume_writing()
        self._waits_for = None
        self._guest.settle()
        self._note(0)

    def expire(self) -> str | None:
        """Close the connection of a late client. Return the deadline's name, or None to wait on."""
        if self.transport.is_closing() or self._waits_for == "send":
            self.transport.abort()
            return "send"
        if self._waits_for == "body":
            if self.is_ours():
                return None
            self.send_problem(408, "Request Timeout", "The request's body did not arrive in time.")
            return "body"
        if self.conn.trailing_data[0]:
            self.send_problem(408, "Request Timeout", "The request's head did not arrive in time.")
        else:
            self.transport.close()
        return "head"

    def is_ours(self) -> bool:
        """Return whether the application has still to read the data."""
        return self._waits_for == "body" and self.flow.read_paused

    def is_closing(self) -> bool:
        """Return whether the connection only has buffered data to send."""
        return self.transport.is_closing()

    def abort(self) -> None:
        """Close the connection at once."""
        self.transport.abort()

    def send_problem(self, status: int, title: str, detail: str) -> str | None:
        """Answer in place of the application and close. Return the trace id, or None if an answer has begun already."""
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request
        if cycle is not None and not cycle.response_complete:
            # The application then finds its client disconnected, and its answer is discarded.
            cycle.disconnected = True
            cycle.message_event.set()
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.abort()
            return None
        trace_id, headers, body = problem(status, title, detail, scheme=self.scheme or "http")
        response = h11.Response(status_code=status, headers=headers, reason=title.encode())
        for event in (response, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
        return trace_id

    def _wait(self, what: str, seconds: float) -> None:
        self._waits_for = what
        self._guest.wait(seconds)

    def _note(self, received: int) -> None:
        """Record whether the client or the process has to act next."""
        if self._waits_for == "send":
            return
        state = self.conn.their_state
        if state is h11.IDLE:
            if self._waits_for != "head":
                # Uvicorn closes an unused connection. The next head has its own deadline after that.
                self._wait("head", self._limits.idle_seconds + self._limits.head_seconds)
        elif state is h11.SEND_BODY:
            self._note_body(received)
        elif self._waits_for is not None:
            self._waits_for = None
            self._guest.settle()

    def _note_body(self, received: int) -> None:
        if self._waits_for != "body":
            self._wait("body", self._limits.body_seconds)
        self._guest.extend(received / self._limits.body_bytes_per_second)
        if self.cycle.response_complete:
            self._unread += received
            if self._unread > _MOST_UNREAD_BYTES:
                self.transport.abort()

    async def _probes_only(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer probes, and refuse other requests with 503."""
        app: ASGIApp = self.config.loaded_app
        if has_path(scope, PROBE_PATHS):
            await app(scope, receive, send)
            return
        self._door.note("busy")
        headers, body = busy_problem(scope["scheme"])
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": body})
