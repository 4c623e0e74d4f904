"""One websocket. One that is not opened is an HTTP request that was answered, as its client sees it."""

import time
from typing import Final

from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from services.ui_iot.http.problems import CLIENT_GONE
from services.ui_iot.middleware.exchange import Measured
from services.ui_iot.middleware.http_meter import INTERNAL_ERROR, HttpMeter

NORMAL_CLOSURE: Final = 1000
NO_CODE: Final = 1005
"""The peer closed without saying why."""
NO_CLOSE: Final = 1006
"""The connection ended without a close."""


class Conversation(Measured):
    """Measured from its acceptance to the first close, whoever sends it."""

    __slots__ = ("_close_code", "_gone", "_opened_at", "_receive", "_status")

    def __init__(self, meter: HttpMeter, scope: Scope, receive: Receive, send: Send, *, trust: bool) -> None:
        self._receive = receive
        self._opened_at: float | None = None
        self._close_code: int | None = None
        self._status = 0
        self._gone = False
        super().__init__(meter, scope, send, trust=trust)

    async def receive(self) -> Message:
        """Note the peer's close."""
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._gone = True
            code = message.get("code", NO_CODE)
            # Uvicorn says 1005 of a lost connection too, but without the reason that a close frame has, be it empty.
            self._note_close(NO_CLOSE if code == NO_CODE and "reason" not in message else code)
        return message

    async def send(self, message: Message) -> None:
        """Add the trace id to the answer to the handshake; a close ends the measurement."""
        kind = message["type"]
        if kind in {"websocket.accept", "websocket.http.response.start"}:
            await self._send(self._with_trace_id(message))
            if kind == "websocket.accept":
                self._open()
            else:
                self._status = message["status"]
            return
        await self._send(message)
        if kind == "websocket.close":
            if self._opened_at is None:
                # What servers answer then, by the ASGI specification.
                self._status = 403
            self._note_close(message.get("code", NORMAL_CLOSURE))
        elif kind != "websocket.http.response.body" or message.get("more_body", False):
            return
        self.complete = True
        self.finish()

    def _open(self) -> None:
        self._opened_at = time.perf_counter()
        if self._measured:
            try:
                self._meter.open_websockets += 1
            except Exception:  # noqa: BLE001  # fail open
                self._count_fault()

    def _note_close(self, code: int | None) -> None:
        # Who closes first says why; the other side only confirms it.
        if self._close_code is None:
            self._close_code = NO_CODE if code is None else code

    def _count_in(self) -> None:
        """A handshake is counted by its answer, an open websocket from its acceptance."""

    def _measure(self) -> None:
        now = time.perf_counter()
        if self._opened_at is not None:
            self._meter.open_websockets -= 1
            self._meter.observe_websocket(self._scope, self.context, self._end_code(), now - self._opened_at)
            return
        status = self._status if self.complete else CLIENT_GONE if self._gone and self.error is None else 500
        self._meter.observe_response(self._scope, self.context, status, now - self._started)

    def _end_code(self) -> int:
        """The close code; what failed here counts as an internal error, though its peer saw the connection end."""
        if self._close_code is not None:
            return self._close_code
        if self.error is None or isinstance(self.error, OSError):
            return NO_CLOSE
        return self.error.code if isinstance(self.error, WebSocketDisconnect) else INTERNAL_ERROR
