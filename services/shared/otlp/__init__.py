"""Spans for an OpenTelemetry collector, with the ids of our logs and rows.

Enabled by OTEL_EXPORTER_OTLP_ENDPOINT and the extra `otlp`. Otherwise the SDK is not imported.
"""

import logging
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from services.shared.egress import DIRECT, Egress
from services.shared.tracing import TraceContext

if TYPE_CHECKING:
    from services.shared.otlp.spans import Spans

log = logging.getLogger(__name__)

_spans: "Spans | None" = None
_UNRECORDED: AbstractContextManager[Callable[[int], None]] = nullcontext(lambda _status_code: None)


def is_wanted() -> bool:
    """Return whether the standard variables request spans."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    # An empty variable counts as unset. If several exporters are named, ours is the one that sends.
    exporters = (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")
    return bool(endpoint) and not is_off and "otlp" in map(str.strip, exporters)


@contextmanager
def exporting(service: str, egress: Egress = DIRECT) -> Iterator[None]:
    """Export the spans of this process inside the context, if it is enabled and possible."""
    global _spans  # noqa: PLW0603  # one for each process, like its logging
    _spans = _open(service, egress) if is_wanted() else None
    try:
        yield
    finally:
        spans, _spans = _spans, None
        if spans is not None:
            spans.close()


def _open(service: str, egress: Egress) -> "Spans | None":
    """Return the exporter, or warn and return None: a variable set for a whole cluster must not stop a service."""
    try:
        from services.shared.otlp.spans import Spans  # noqa: PLC0415  # loaded only if enabled

        return Spans(service, egress)
    except ModuleNotFoundError as missing:
        log.warning("no spans are exported: %s is not installed: pip install '.[otlp]' in the checkout", missing.name)
    except Exception as error:  # noqa: BLE001  # the SDK raises any error for an invalid variable
        log.warning("no spans are exported: %s: %s", type(error).__name__, error)
    return None


def tracer_provider() -> Any:
    """Return the tracer provider for FastAPI, or None while no spans are exported."""
    return None if _spans is None else _spans.provider


def call(context: TraceContext, method: str, host: str, port: int) -> AbstractContextManager[Callable[[int], None]]:
    """Record the span of one outgoing request, and yield a function that takes the status code of the answer.

    The span has only the host of the URL, because paths of webhooks are secrets.
    """
    return _UNRECORDED if _spans is None else _spans.call(context, method, host, port)


async def record_pass(operation: str, step: Awaitable[int]) -> int:
    """Run a worker's pass and return its rows. A pass with rows is a trace."""
    return await step if _spans is None else await _spans.record_pass(operation, step)
