"""Metrics and log lines of the API's requests.

No label takes a value from a client: methods, templates and statuses come from closed sets.
"""

import contextlib
import logging
import time
from bisect import bisect_left
from typing import Final

from prometheus_client import Counter, Histogram
from starlette.types import Scope

from services.shared.logging import tell
from services.shared.metrics import BUCKETS, ProcessMetrics
from services.shared.tracing import TraceContext
from services.ui_iot.auth.request_context import find_context
from services.ui_iot.middleware.path_template import UNMATCHED, PathTemplates

log = logging.getLogger(__name__)

# OpenTelemetry's known methods. Any other counts as _OTHER, so that a client cannot create series.
KNOWN_METHODS: Final = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
OTHER: Final = "_OTHER"
LONGEST_LOGGED_PATH: Final = 256
EXEMPLAR_SECONDS: Final = 1.0


class _Series:
    """One series of the durations.

    A bucket's exemplar is renewed once a second at most, because a scrape shows only the last one, and storing one
    costs more than the rest of an observation.
    """

    __slots__ = ("_due", "_observe")

    def __init__(self, histogram: Histogram) -> None:
        self._observe = histogram.observe
        self._due = [0.0] * (len(BUCKETS) + 1)

    def observe(self, seconds: float, *, trace_id: str | None) -> None:
        """Observe a duration. trace_id: a recorded trace, as the bucket's exemplar."""
        if trace_id is not None:
            bucket, now = bisect_left(BUCKETS, seconds), time.monotonic()
            if now >= self._due[bucket]:
                self._due[bucket] = now + EXEMPLAR_SECONDS
                self._observe(seconds, {"trace_id": trace_id})
                return
        self._observe(seconds)


class HttpMeter:
    """The API's own metrics. `unmeasured` has the probes' paths, which are traced but not logged or counted."""

    def __init__(self, metrics: ProcessMetrics, *, templates: PathTemplates, unmeasured: frozenset[str]) -> None:
        self.unmeasured = unmeasured
        self._templates = templates
        self._duration = metrics.http_request_duration
        self._series: dict[tuple[str, str, int], _Series] = {}
        self._failures = Counter(
            "pulse_http_failures_total",
            "Requests that ended with a 5xx. It is 0 from the start, so that a rate includes the first ones.",
            registry=metrics.registry,
        )
        self.in_progress = 0
        """Requests being answered. The exchange that increments it decrements it."""
        metrics.http_requests_in_progress.set_function(lambda: self.in_progress)
        self._errors = Counter(
            "pulse_http_measuring_errors_total",
            "Requests that could not be measured or logged.",
            registry=metrics.registry,
        )

    def observe_response(self, scope: Scope, context: TraceContext, status: int, seconds: float) -> None:
        """Observe and log a response. A recorded trace becomes the exemplar of its bucket."""
        method = scope["method"]
        if method not in KNOWN_METHODS:
            method = OTHER
        key = (method, self._templates.of(scope), status)
        series = self._series.get(key)
        if series is None:
            label = self._bounded(scope, key)
            series = self._series.get(label)
            if series is None:
                series = self._series[label] = _Series(self._duration.labels(label[0], label[1], str(status)))
            self._series[key] = series
        request = find_context(scope)
        series.observe(seconds, trace_id=context.trace_id if request is not None and request.is_on_record else None)
        if status >= 500:
            self._failures.inc()
        _log_end(scope, context, key, seconds)

    def _bounded(self, scope: Scope, key: tuple[str, str, int]) -> tuple[str, str, int]:
        """Return the labels of a request, so that no client can make /metrics large.

        Requests without a caller create few series, and a caller creates none for methods that an address lacks.
        """
        request = find_context(scope)
        if request is None:
            return key
        method, template, status = key
        is_declared = self._templates.declares(method, template)
        if request.principal is not None:
            return key if is_declared or template == UNMATCHED else (OTHER, template, status)
        is_kept = template == UNMATCHED or (is_declared and method != "HEAD")
        return key if is_kept else (OTHER, UNMATCHED, status)

    def count_error(self) -> None:
        """Count a request that could not be measured or logged."""
        with contextlib.suppress(Exception):
            self._errors.inc()


def _log_end(scope: Scope, context: TraceContext, key: tuple[str, str, int], seconds: float) -> None:
    request = find_context(scope)
    extras = {
        "method": key[0],
        "path": scope["path"][:LONGEST_LOGGED_PATH],
        "path_template": key[1],
        "status_code": key[2],
        "duration_ms": round(seconds * 1000, 3),
        "client_address": None if request is None else request.ip_address,
    }
    if context.foreign_trace_id is not None:
        extras["foreign_trace_id"] = context.foreign_trace_id
    if request is not None and request.principal is not None:
        extras["tenant_id"] = request.principal.tenant_id
        extras["actor_id"] = request.principal.actor.id
    tell(log, logging.ERROR if key[2] >= 500 else logging.INFO, f"{key[0]} {key[1]} {key[2]}", extras)
