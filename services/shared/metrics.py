"""The metrics a process keeps itself; what SQL knows is served from views instead."""

import re
from collections.abc import Callable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

# OpenTelemetry's boundaries for http.server.request.duration, seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

# Formats that the encoders really write.
_VERSIONS = frozenset({"0.0.4", "1.0.0"})

AUTH_FAILURE_REASONS = (
    "missing_token",
    "invalid_token",
    "expired",
    "invalid_claims",
    "unknown_key",
    "auth_unavailable",
    "rate_limited",
    "forbidden",
)


def choose_format(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """The encoder and the content type for an Accept header.

    Of a version that it does not know, prometheus_client's own choice fails or echoes what the client sent.
    """
    kept = []
    for part in accept.split(","):
        version = re.search(r";\s*version=([^;]*)", part)
        if version is None or version[1].strip() in _VERSIONS:
            kept.append(part)
    return choose_encoder(",".join(kept))


class SizedPool(Protocol):
    """What the pool gauges read."""

    def get_size(self) -> int:
        """Connections open."""

    def get_idle_size(self) -> int:
        """Connections nobody uses."""


class _PoolCollector(Collector):
    """Reads the pool when it is scraped, so that the gauges can never be stale."""

    def __init__(self, service: str, pool: SizedPool) -> None:
        self._service = service
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        size = GaugeMetricFamily("pulse_db_pool_size", "Database connections open.", labels=["service"])
        size.add_metric([self._service], self._pool.get_size())
        free = GaugeMetricFamily(
            "pulse_db_pool_free",
            "Database connections open and idle.",
            labels=["service"],
        )
        free.add_metric([self._service], self._pool.get_idle_size())
        yield size
        yield free


class ProcessMetrics:
    """The registry of one process and the metrics every process has."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self.http_request_duration = Histogram(
            "pulse_http_request_duration_seconds",
            "Seconds from a request's arrival to the last byte of its response.",
            ["method", "path_template", "status_code"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.http_requests_in_progress = Gauge(
            "pulse_http_requests_in_progress",
            "Requests being answered.",
            registry=self.registry,
        )
        self.auth_failures = Counter(
            "pulse_auth_failures_total",
            "Refused authentications.",
            ["reason"],
            registry=self.registry,
        )
        for reason in AUTH_FAILURE_REASONS:
            self.auth_failures.labels(reason)
        self.processing_duration = Histogram(
            "pulse_processing_duration_seconds",
            "Seconds one pass of a worker took.",
            ["service", "operation"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def processing(self, operation: str) -> Histogram:
        """The duration histogram of one operation; asking for it makes it appear with zero observations."""
        return self.processing_duration.labels(self.service, operation)

    def watch_pool(self, pool: SizedPool) -> None:
        """Serve the pool's size and free connections."""
        self.registry.register(_PoolCollector(self.service, pool))
