"""The outermost layer of the API: trace id in and out, one log line and one duration for each request.

Hand-written, because it is paid by every request: about 10 µs for all three. Measuring fails open: whatever goes wrong
in it is counted and changes no response.
"""

import logging
import time
from collections.abc import Callable

from prometheus_client import Counter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.shared import tracing
from services.shared.metrics import ProcessMetrics
from services.ui_iot.middleware.path_template import PathTemplates
from services.ui_iot.problems import CLIENT_GONE

log = logging.getLogger(__name__)

# OpenTelemetry's known methods; any other is counted as _OTHER, so that a client cannot make series.
KNOWN_METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"))
LONGEST_LOGGED_PATH = 256

Observe = Callable[[float], None]


class TraceMiddleware:
    """Wraps the whole application; `unmeasured` names the probes' paths, which are traced but not logged or counted."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        metrics: ProcessMetrics,
        templates: PathTemplates,
        unmeasured: frozenset[str],
        trust_incoming_trace: bool = True,
    ) -> None:
        self.app = app
        self.trust_incoming_trace = trust_incoming_trace
        self._templates = templates
        self._unmeasured = unmeasured
        self._duration = metrics.http_request_duration
        self._observers: dict[tuple[str, str, int], Observe] = {}
        self._in_progress = 0
        metrics.http_requests_in_progress.set_function(lambda: self._in_progress)
        self._errors = Counter(
            "pulse_http_measuring_errors_total",
            "Requests that could not be measured or logged.",
            registry=metrics.registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request within its trace."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self, scope, send)
        token = tracing.enter(exchange.context)
        try:
            await self.app(scope, receive, exchange.send)
        except BaseException as error:
            exchange.failed = True
            # After a complete response there is nothing left to tell the server; what failed is logged where it failed.
            if not exchange.complete or not isinstance(error, Exception):
                raise
        finally:
            exchange.finish()
            tracing.leave(token)

    def begin(self, path: str) -> bool:
        """Count a request in; False for a probe, which is not measured."""
        if path in self._unmeasured:
            return False
        self._in_progress += 1
        return True

    def end(self, scope: Scope, status: int, seconds: float) -> None:
        """Observe and log one request."""
        self._in_progress -= 1
        try:
            method = scope["method"] if scope["method"] in KNOWN_METHODS else "_OTHER"
            template = self._templates.of(scope)
            key = (method, template, status)
            observe = self._observers.get(key)
            if observe is None:
                observe = self._observers[key] = self._duration.labels(method, template, str(status)).observe
            observe(seconds)
            _log_request(scope, key, seconds)
        except Exception:  # noqa: BLE001  # fail open: measuring must never cost a response
            self.count_error()

    def count_error(self) -> None:
        """Count a request that could not be measured or logged."""
        self._errors.inc()


class _Exchange:
    """One request and its response."""

    __slots__ = ("_measured", "_middleware", "_scope", "_send", "_started", "_status", "complete", "context", "failed")

    def __init__(self, middleware: TraceMiddleware, scope: Scope, send: Send) -> None:
        self._started = time.perf_counter()
        self._middleware = middleware
        self._scope = scope
        self._send = send
        self._status = 0
        self.complete = False
        self.failed = False
        self._measured = middleware.begin(scope["path"])
        self.context = self._read_context(trust=middleware.trust_incoming_trace)

    def _read_context(self, *, trust: bool) -> tracing.TraceContext:
        try:
            return tracing.from_headers(self._scope["headers"], trust=trust)
        except Exception:  # noqa: BLE001  # fail open
            self._middleware.count_error()
            return tracing.start()

    async def send(self, message: Message) -> None:
        """Add the trace id to the response's head; the last byte of its body ends the measurement."""
        kind = message["type"]
        if kind == "http.response.start":
            self._status = message["status"]
            # A new list: the application may keep its own for the next response.
            message["headers"] = [*message.get("headers", ()), (b"x-trace-id", self.context.trace_id.encode())]
            await self._send(message)
            return
        await self._send(message)
        if kind == "http.response.pathsend" or (kind == "http.response.body" and not message.get("more_body", False)):
            self.complete = True
            self.finish()

    def finish(self) -> None:
        """Measure once; a response that was cut off counts as what cut it off."""
        if not self._measured:
            return
        self._measured = False
        status = self._status
        if not self.complete:
            status = 500 if self.failed else CLIENT_GONE
        self._middleware.end(self._scope, status, time.perf_counter() - self._started)


# A record made by hand from this one: Logger.info walks the stack and asks for threads, 4 µs that nobody reads here.
_RECORD = vars(logging.LogRecord(log.name, logging.INFO, __file__, 0, "%s %s %s", (), None))


def _log_request(scope: Scope, key: tuple[str, str, int], seconds: float) -> None:
    level, name = (logging.ERROR, "ERROR") if key[2] >= 500 else (logging.INFO, "INFO")
    if not log.isEnabledFor(level):
        return
    record = logging.LogRecord.__new__(logging.LogRecord)
    record.__dict__ = fields = {
        **_RECORD,
        "levelno": level,
        "levelname": name,
        "args": key,
        "created": time.time(),
        "method": key[0],
        "path": scope["path"][:LONGEST_LOGGED_PATH],
        "path_template": key[1],
        "status_code": key[2],
        "duration_ms": round(seconds * 1000, 3),
        "client_address": scope.get("pulse.client_address"),
    }
    principal = scope.get("pulse.principal")
    if principal is not None:
        fields["tenant_id"] = principal.tenant_id
        fields["actor_id"] = principal.actor.id
    log.handle(record)
