"""The SDK's part: a provider whose spans take their ids from services.shared.tracing, and a batch that never blocks."""

import logging
import os
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import Span, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState
from requests import PreparedRequest, Response, Session
from requests.adapters import HTTPAdapter

from services.shared import tracing
from services.shared.egress import DIRECT, Egress
from services.shared.tracing import TraceContext

# A stop may take 10 s in all, and a hanging collector must not use them up.
FLUSH_SECONDS = 2.0

# The context whose ids the next span takes, because the SDK requests ids without naming their span.
_next: ContextVar[TraceContext | None] = ContextVar("pulse_next_span", default=None)


class _Ids(IdGenerator):
    """Generates the ids of the context that the span belongs to."""

    def generate_trace_id(self) -> int:
        context = _next.get()
        return int(tracing.new_trace_id() if context is None else context.trace_id, 16)

    def is_trace_id_random(self) -> bool:
        context = _next.get()
        return context is None or context.flags == tracing.SAMPLED_RANDOM

    def generate_span_id(self) -> int:
        context = _next.get()
        _next.set(None)
        return int(tracing.new_span_id() if context is None else context.span_id, 16)


class _Propagator(TextMapPropagator):
    """Passes the trace context of the middleware to FastAPI, and ignores the headers of the request."""

    def extract(self, carrier: Any, context: Context | None = None, getter: Any = None) -> Context:
        del carrier, getter
        current = tracing.current()
        _next.set(current)
        return (context or Context()) if current is None else _below_parent(current, is_remote=True)

    def inject(self, carrier: Any, context: Context | None = None, setter: Any = None) -> None:
        """Do nothing, because http_client sets outgoing headers."""

    @property
    def fields(self) -> set[str]:
        return set()


class _Batch(BatchSpanProcessor):
    """Removes query strings, which may hold misplaced tokens, from exported spans."""

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        if span.attributes and "url.query" in span.attributes:
            span.set_attribute("url.query", "REDACTED")
        super().on_start(span, parent_context)


def _below_parent(context: TraceContext, *, is_remote: bool = False) -> Context:
    if context.parent_span_id is None:
        return Context()
    state = TraceState.from_header([context.tracestate]) if context.tracestate else None
    parent = SpanContext(
        int(context.trace_id, 16),
        int(context.parent_span_id, 16),
        is_remote=is_remote,
        trace_flags=TraceFlags(int(context.flags, 16)),
        trace_state=state,
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


class _Adapter(HTTPAdapter):
    """Verifies certificates and bypasses the proxy by the same rules as other outgoing calls."""

    def __init__(self, egress: Egress, proxy_url: str | None) -> None:
        self._egress = egress
        self._proxy_url = proxy_url
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, ssl_context=self._egress.ssl_context())

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._egress.ssl_context())

    def send(self, request: PreparedRequest, *args: Any, **kwargs: Any) -> Response:
        host = urlsplit(request.url or "").hostname or ""
        if self._proxy_url is not None and self._egress.proxy_for(host) is not None:
            kwargs["proxies"] = {"http": self._proxy_url, "https": self._proxy_url}
        return super().send(request, *args, **kwargs)


def _session(egress: Egress) -> Session | None:
    """Return a session for a proxy or extra authorities, or None for the exporter's own."""
    if egress == DIRECT:
        return None
    session = Session()
    proxy_url = None if egress.proxy is None else egress.proxy.url
    for scheme in ("http://", "https://"):
        session.mount(scheme, _Adapter(egress, proxy_url))
    return session


class Spans:
    """The spans of one process, sent to the collector that the OTEL_ variables name."""

    def __init__(self, service: str, egress: Egress = DIRECT) -> None:
        resource = Resource.create(
            {"service.name": f"pulse-{service}", "service.instance.id": f"{socket.gethostname()}:{os.getpid()}"}
        ).merge(OTELResourceDetector().detect())
        self.provider = TracerProvider(resource=resource, id_generator=_Ids(), shutdown_on_exit=False)
        self.provider.add_span_processor(_Batch(OTLPSpanExporter(session=_session(egress))))
        self._tracer = self.provider.get_tracer("pulse")
        # Log one line for each lost batch, not for each attempt.
        logging.getLogger("opentelemetry.exporter").setLevel(logging.ERROR)
        self._others_propagator = propagate.get_global_textmap()
        propagate.set_global_textmap(_Propagator())

    @contextmanager
    def call(self, context: TraceContext, method: str, host: str, port: int) -> Iterator[Callable[[int], None]]:
        """Implement otlp.call."""
        attributes = {"http.request.method": method, "server.address": host, "server.port": port}
        span = self._start(method, context, SpanKind.CLIENT, attributes)

        def answered(status_code: int) -> None:
            span.set_attribute("http.response.status_code", status_code)
            if status_code >= 400:
                _fail(span, str(status_code))

        try:
            yield answered
        except BaseException as error:
            _fail(span, type(error).__name__)
            raise
        finally:
            span.end()

    async def record_pass(self, operation: str, step: Awaitable[int]) -> int:
        """Implement otlp.record_pass."""
        context = tracing.start()
        span = self._start(operation, context, SpanKind.INTERNAL, {"pulse.operation": operation})
        try:
            with tracing.use(context):
                rows = await step
        except BaseException as error:
            _fail(span, type(error).__name__)
            span.end()
            raise
        if rows:  # a span that never ends is not exported
            span.set_attribute("pulse.rows", rows)
            span.end()
        return rows

    def _start(self, name: str, context: TraceContext, kind: SpanKind, attributes: dict[str, Any]) -> trace.Span:
        _next.set(context)
        return self._tracer.start_span(name, _below_parent(context), kind, attributes)

    def close(self) -> None:
        """Send the remaining spans, and drop those that the collector does not accept in time."""
        propagate.set_global_textmap(self._others_propagator)
        flushing = threading.Thread(target=self.provider.shutdown, name="otlp-flush", daemon=True)
        flushing.start()
        flushing.join(FLUSH_SECONDS)


def _fail(span: trace.Span, error_type: str) -> None:
    span.set_attribute("error.type", error_type)
    span.set_status(StatusCode.ERROR)
