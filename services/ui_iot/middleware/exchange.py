"""One request and its response: the status that the client saw, and the time until the last byte.

Measuring never changes a response. It happens in `__init__` and `finish` only, in one `try` each: a fault there is
counted once and leaves every byte as it is.
"""

import time

from starlette.requests import ClientDisconnect
from starlette.types import Message, Scope, Send

from services.shared import tracing
from services.shared.web import has_path
from services.ui_iot.http.problems import CLIENT_GONE
from services.ui_iot.middleware.http_meter import HttpMeter


class Exchange:
    """A request with its trace, measured once."""

    __slots__ = (
        "_faulty",
        "_measured",
        "_meter",
        "_scope",
        "_send",
        "_started",
        "_status",
        "complete",
        "context",
        "error",
    )

    def __init__(self, meter: HttpMeter, scope: Scope, send: Send, *, trust: bool) -> None:
        self._started = time.perf_counter()
        self._meter = meter
        self._scope = scope
        self._send = send
        self._status = 0
        self._faulty = False
        self._measured = False
        self.complete = False
        """True once the whole response was sent."""
        self.error: BaseException | None = None
        try:
            if not has_path(scope, meter.unmeasured):
                meter.in_progress += 1
                self._measured = True
            self.context = tracing.from_headers(scope["headers"], trust=trust)
        except Exception:  # noqa: BLE001  # fail open
            self._count_fault()
            self.context = tracing.start()

    async def send(self, message: Message) -> None:
        """Send a message, with the trace id in the head; the last byte of the body ends the measurement."""
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
            # A copy: the application may keep its own message for the next response.
            trace_header = (b"x-trace-id", self.context.trace_id.encode())
            await self._send({**message, "headers": [*message.get("headers", ()), trace_header]})
            return
        await self._send(message)
        if kind == "http.response.pathsend" or (kind == "http.response.body" and not message.get("more_body", False)):
            self.complete = True
            self.finish()

    def finish(self) -> None:
        """Measure the request, once."""
        if not self._measured:
            return
        self._measured = False
        try:
            seconds = time.perf_counter() - self._started
            self._meter.in_progress -= 1
            self._meter.observe_response(self._scope, self.context, self._outcome(), seconds)
        except Exception:  # noqa: BLE001  # fail open
            self._count_fault()

    def _outcome(self) -> int:
        """Return the status that the client saw, or 499 or 500 for a response that it did not see whole."""
        # The ASGI way to learn that the client left is to receive again, which would answer an Expect: 100-continue.
        gone: bool | None = getattr(getattr(self._send, "__self__", None), "disconnected", None)
        if self.complete:
            # A 5xx stays one even if the client left before it was sent.
            return CLIENT_GONE if gone and self._status < 500 else self._status
        if self.error is not None and not isinstance(self.error, ClientDisconnect):
            return 500
        # If the server knows that the client is there, the application has left its response unfinished.
        return 500 if gone is False else CLIENT_GONE

    def _count_fault(self) -> None:
        if not self._faulty:
            self._faulty = True
            self._meter.count_error()
