"""The metrics that a process keeps itself. Metrics that SQL knows are served from views instead."""

import hmac
import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Final, Literal, Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

# OpenTelemetry's boundaries for http.server.request.duration, seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)

# Versions of formats that the encoders support.
_VERSIONS = frozenset({"0.0.4", "1.0.0"})

AuthFailureReason = Literal[
    "missing_token",
    "invalid_token",
    "token_too_large",
    "expired",
    "revoked",
    "invalid_claims",
    "unknown_key",
    "auth_unavailable",
    "rate_limited",
    "forbidden",
]
"""Reasons of refused requests: values of a metric label, of an audit detail and of a member of the answer.

The view audit.auth_failure_reasons has the same reasons for SQL.
"""
AUTH_FAILURE_REASONS: Final[tuple[AuthFailureReason, ...]] = get_args(AuthFailureReason)


def choose_format(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    """Return the encoder and the content type for an Accept header.

    prometheus_client's own choice fails for an unknown version, or echoes the value that the client sent.
    """
    kept = []
    for part in accept.split(","):
        version = re.search(r";\s*version=([^;]*)", part)
        if version is None or version[1].strip() in _VERSIONS:
            kept.append(part)
    return choose_encoder(",".join(kept))


Scrape = Callable[[Request], Awaitable[tuple[bytes, str]]]
"""Returns the body of /metrics and its content type."""


def metrics_route(scrape: Scrape, token: SecretStr | None) -> Route:
    """Return the route of /metrics. With a token, requests must carry it."""

    async def metrics(request: Request) -> Response:
        if token is not None and not _shows(request, token.get_secret_value().encode()):
            raise HTTPException(
                401, "The bearer token of /metrics is missing or wrong.", headers={"WWW-Authenticate": "Bearer"}
            )
        body, content_type = await scrape(request)
        return Response(body, headers={"content-type": content_type})

    return Route("/metrics", metrics, include_in_schema=False)


def _shows(request: Request, token: bytes) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # In constant time, or the token could be guessed byte by byte. Headers were decoded as Latin-1.
    return hmac.compare_digest(given.strip().encode("latin-1"), token) and scheme.lower() == "bearer"


class SizedPool(Protocol):
    """The interface that the pool gauges read."""

    def get_size(self) -> int:
        """Return the number of open connections."""

    def get_idle_size(self) -> int:
        """Return the number of idle connections."""


class _PoolCollector(Collector):
    """Reads the pool at each scrape, so that the gauges are never stale."""

    def __init__(self, service: str, pool: SizedPool) -> None:
        self._service = service
        self._pool = pool

    def collect(self) -> Iterator[Metric]:
        size = GaugeMetricFamily("pulse_db_pool_size", "Open database connections.", labels=["service"])
        size.add_metric([self._service], self._pool.get_size())
        free = GaugeMetricFamily(
            "pulse_db_pool_free",
            "Open and idle database connections.",
            labels=["service"],
        )
        free.add_metric([self._service], self._pool.get_idle_size())
        yield size
        yield free


class QueueGauges(Collector):
    """Queue depths of one scrape, rendered beside the registry of the process."""

    def __init__(self, service: str, queues: Sequence[dict[str, Any]]) -> None:
        self._service = service
        self._queues = queues

    def collect(self) -> Iterator[Metric]:
        """Yield the depth and age of each queue."""
        labels = ["service", "queue_name"]
        depth = GaugeMetricFamily("pulse_queue_depth", "Rows that wait in a queue.", labels=labels)
        age = GaugeMetricFamily(
            "pulse_queue_oldest_age_seconds",
            "Seconds that the oldest row of a queue has waited.",
            labels=labels,
        )
        for queue in self._queues:
            depth.add_metric([self._service, queue["queue_name"]], queue["depth"])
            age.add_metric([self._service, queue["queue_name"]], queue["oldest_age_seconds"])
        yield depth
        yield age


class Joined:
    """The registry of the process and the queue gauges of a scrape, joined as one registry."""

    def __init__(self, registry: CollectorRegistry, gauges: Collector) -> None:
        self._registry = registry
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        """Yield all families."""
        yield from self._registry.collect()
        yield from self._gauges.collect()


class ProcessMetrics:
    """The registry of one process, with the metrics that every process has."""

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
            "Duration of one pass of a worker in seconds.",
            ["service", "operation"],
            buckets=BUCKETS,
            registry=self.registry,
        )

    def processing(self, operation: str) -> Histogram:
        """Return the duration histogram of an operation, which then exists with zero observations."""
        return self.processing_duration.labels(self.service, operation)

    def watch_pool(self, pool: SizedPool) -> None:
        """Export the size and the free connections of the pool."""
        self.registry.register(_PoolCollector(self.service, pool))
