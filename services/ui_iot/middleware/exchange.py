"""One request and its response: what it was and when it ended.

Measuring fails open: all of it happens in __init__ and finish, one try in each, so that whatever goes wrong in it is
counted once and changes no byte of the response.
"""

import time

from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope, Send

from services.shared import tracing
from services.shared.web import has_path
from services.ui_iot.http.problems import CLIENT_GONE
from services.ui_iot.middleware.http_meter import HttpMeter


class Measured:
    """What a request and a websocket share: a trace, a measurement that happens once, a fault that counts once."""

    __slots__ = ("_faulty", "_measured", "_meter", "_scope", "_send", "_started", "complete", "context", "error")

    def __init__(self, meter: HttpMeter, scope: Scope, send: Send, *, trust: bool) -> None:
        self._started = time.perf_counter()
        self._meter = meter
        self._scope = scope
        self._send = send
        self._faulty = False
        self._measured = False
        self.complete = False
        """Nothing is left to tell the server."""
        self.error: BaseException | None = None
        try:
            if not has_path(scope, meter.unmeasured):
                self._count_in()
                self._measured = True
            self.context = tracing.from_headers(scope["headers"], trust=trust)
        except Exception:  # noqa: BLE001  # fail open
            self._count_fault()
            self.context = tracing.start()

    def finish(self) -> None:
        """Measure, once."""
        if not self._measured:
            return
        self._measured = False
        try:
            self._measure()
        except Exception:  # noqa: BLE001  # fail open
            self._count_fault()

    def _count_in(self) -> None:
        raise NotImplementedError

    def _measure(self) -> None:
        raise NotImplementedError

    def _count_fault(self) -> None:
        if not self._faulty:
            self._faulty = True
            self._meter.count_error()

    def _with_trace_id(self, message: Message) -> Message:
        """A copy: the application may keep its own for the next response."""
        return {**message, "headers": [*message.get("headers", ()), (b"x-trace-id", self.context.trace_id.encode())]}


class Exchange(Measured):
    """A request and its response."""

    __slots__ = ("_status",)

    def __init__(self, meter: HttpMeter, scope: Scope, send: Send, *, trust: bool) -> None:
        self._status = 0
        super().__init__(meter, scope, send, trust=trust)

    async def send(self, message: Message) -> None:
        """Add the trace id to the response's head; the last byte of its body ends the measurement."""
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
            await self._send(self._with_trace_id(message))
            return
        await self._send(message)
        if kind == "http.response.pathsend" or (kind == "http.response.body" and not message.get("more_body", False)):
            self.complete = True
            self.finish()

    def _count_in(self) -> None:
        self._meter.in_progress += 1

    def _measure(self) -> None:
        seconds = time.perf_counter() - self._started
        self._meter.in_progress -= 1
        self._meter.observe_response(self._scope, self.context, self._outcome(), seconds)

    def _outcome(self) -> int:
        """The status the client saw; of a response that it did not see whole, what cut it off."""
        # ASGI tells a server's knowledge only to who reads on, which would answer an Expect: 100-continue.
        gone: bool | None = getattr(getattr(self._send, "__self__", None), "disconnected", None)
        if self.complete:
            # What failed here failed, whether or not somebody was there to hear of it.
            return CLIENT_GONE if gone and self._status < 500 else self._status
        if self.error is not None and not isinstance(self.error, ClientDisconnect):
            return 500
        # The server knows that the client is there: so the application has left its response unfinished.
        return 500 if gone is False else CLIENT_GONE
