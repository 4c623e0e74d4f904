"""Spans for an OpenTelemetry collector, with the ids that our logs and rows have.

On where OTEL_EXPORTER_OTLP_ENDPOINT is set and the extra `otlp` is installed; else nothing of the SDK is imported.
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
    """Whether the standard variables ask for spans."""
    endpoint = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")
    is_off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    # An empty variable counts as one that is unset; of several exporters ours is the one that sends.
    exporters = (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").split(",")
    return bool(endpoint) and not is_off and "otlp" in map(str.strip, exporters)


@contextmanager
def exporting(service: str, egress: Egress = DIRECT) -> Iterator[None]:
    """Export the spans of this process while inside, if they are wanted and can be."""
    global _spans  # noqa: PLW0603  # one a process, as its logging is
    _spans = _open(service, egress) if is_wanted() else None
    try:
        yield
    finally:
        spans, _spans = _spans, None
        if spans is not None:
            spans.close()


def _open(service: str, egress: Egress) -> "Spans | None":
    """None with a warning when it cannot be: a variable set for a whole cluster must not keep alerts from anybody."""
    try:
        from services.shared.otlp.spans import Spans  # noqa: PLC0415  # not loaded while nobody wants it

        return Spans(service, egress)
    except ModuleNotFoundError as missing:
        log.warning("no spans are exported: %s is not installed: pip install '.[otlp]' in the checkout", missing.name)
    except Exception as error:  # noqa: BLE001  # the SDK raises anything for a variable that it cannot read
        log.warning("no spans are exported: %s: %s", type(error).__name__, error)
    return None


def tracer_provider() -> Any:
    """What makes the spans of requests, for FastAPI; None while none are exported."""
    return None if _spans is None else _spans.provider


def call(context: TraceContext, method: str, host: str, port: int) -> AbstractContextManager[Callable[[int], None]]:
    """The span of one outgoing request; yields what takes the status code of the answer.

    Of the URL only the host is told: paths of webhooks are secrets.
    """
    return _UNRECORDED if _spans is None else _spans.call(context, method, host, port)


async def record_pass(operation: str, step: Awaitable[int]) -> int:
    """The rows of a worker's pass, which is a trace of its own unless it found nothing to do."""
    return await step if _spans is None else await _spans.record_pass(operation, step)
