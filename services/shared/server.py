"""What every process serves besides its work: /metrics, /livez, /readyz and /health."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

import asyncpg
import uvicorn
from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.shared import logging as json_logging
from services.shared import otlp
from services.shared.db import UNAVAILABLE, Pool, SchemaMismatch, UnsafeDatabase, check_revision
from services.shared.metrics import ProcessMetrics, choose_format
from services.shared.settings import Settings

log = logging.getLogger(__name__)

S = TypeVar("S", bound=Settings)

# A probe must answer before the one who asks gives up; Kubernetes' default is 1 s.
PROBE_SECONDS = 0.9


def program_version() -> str:
    """The version of this checkout."""
    try:
        return version("pulse")
    except PackageNotFoundError:
        return "0.1.0"


class CannotListen(Exception):
    """The address is taken or not this machine's."""


@dataclass(slots=True)
class Process:
    """The running process as its status routes see it."""

    settings: Settings
    metrics: ProcessMetrics
    pool: Pool | None = None
    probe: Callable[[], Awaitable[str | None]] | None = None
    """Asks the database where there is no pool: gives why it cannot be used, or None."""
    ready: bool = False
    stopping: bool = False
    counters: dict[str, int] = field(default_factory=lambda: {"passes": 0, "rows": 0, "errors": 0})
    last_pass_at: datetime | None = None
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_monotonic: float = field(default_factory=time.monotonic)

    @property
    def service(self) -> str:
        """Name of the service."""
        return self.settings.service

    async def queues(self) -> list[dict[str, Any]]:
        """Depth and age of this service's queues; empty while the database does not answer."""
        if self.pool is None:
            return []
        try:
            # The time given to acquire() bounds release() too, which otherwise waits for a hung server without end.
            async with self.pool.acquire(timeout=PROBE_SECONDS) as connection:
                rows = await connection.fetch(
                    "select queue_name, depth, oldest_age_seconds from api.queues where service = $1",
                    self.service,
                    timeout=PROBE_SECONDS,
                )
        except (*UNAVAILABLE, asyncpg.PostgresError):
            return []
        return [dict(row) for row in rows]


class _QueueGauges(Collector):
    """One scrape's queue depths, rendered beside the process's own registry."""

    def __init__(self, service: str, queues: Sequence[dict[str, Any]]) -> None:
        self._service = service
        self._queues = queues

    def collect(self) -> Iterator[Metric]:
        labels = ["service", "queue_name"]
        depth = GaugeMetricFamily("pulse_queue_depth", "Rows that wait in a queue.", labels=labels)
        age = GaugeMetricFamily(
            "pulse_queue_oldest_age_seconds",
            "Seconds the oldest row of a queue has waited.",
            labels=labels,
        )
        for queue in self._queues:
            depth.add_metric([self._service, queue["queue_name"]], queue["depth"])
            age.add_metric([self._service, queue["queue_name"]], queue["oldest_age_seconds"])
        yield depth
        yield age


class _Merged:
    """The process's registry and this scrape's queue gauges, as one registry to render."""

    def __init__(self, registry: CollectorRegistry, gauges: Collector) -> None:
        self._registry = registry
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        yield from self._registry.collect()
        yield from self._gauges.collect()


def status_routes(process: Process) -> list[Route]:
    """The four routes, to be put into any Starlette or FastAPI application."""

    async def metrics(request: Request) -> Response:
        gauges = _QueueGauges(process.service, await process.queues())
        encode, content_type = choose_format(request.headers.get("accept", ""))
        body = encode(_Merged(process.metrics.registry, gauges))
        return Response(body, headers={"content-type": content_type})

    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        fault = await readiness_fault(process)
        return PlainTextResponse("ok\n") if fault is None else PlainTextResponse(fault + "\n", status_code=503)

    async def health(_request: Request) -> Response:
        fault = await readiness_fault(process)
        return JSONResponse(
            {
                "status": "ok" if fault is None else "degraded",
                "reason": fault,
                "service": process.service,
                "version": program_version(),
                "uptime_seconds": round(time.monotonic() - process.started_monotonic, 3),
                "started_at": process.started_at.isoformat(),
                "counters": process.counters,
                "last_pass_at": process.last_pass_at.isoformat() if process.last_pass_at else None,
                "queues": await process.queues(),
            }
        )

    return [
        Route("/metrics", metrics, include_in_schema=False),
        Route("/livez", livez, include_in_schema=False),
        Route("/healthz", livez, include_in_schema=False),
        Route("/readyz", readyz, include_in_schema=False),
        Route("/health", health, include_in_schema=False),
    ]


async def record_process(process: Process, event: str) -> None:
    """Write to the audit trail that this process started or stopped; a database that is away costs only the row."""
    if process.pool is None:
        return
    instance = f"{socket.gethostname()}:{os.getpid()}"
    try:
        async with process.pool.acquire(timeout=PROBE_SECONDS) as connection:
            await connection.execute(
                "select audit.record_process($1, $2, $3)", process.service, instance, event, timeout=PROBE_SECONDS
            )
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        log.warning("%s is not in the audit trail: %s", event, type(error).__name__)


async def readiness_fault(process: Process) -> str | None:
    """Why the process should get no work now, or None."""
    if process.stopping:
        return "stopping"
    if process.probe is not None and process.ready:
        return await process.probe()
    if process.pool is None or not process.ready:
        return "starting"
    try:
        async with process.pool.acquire(timeout=PROBE_SECONDS) as connection:
            await check_revision(connection, seconds=PROBE_SECONDS)
    except SchemaMismatch as mismatch:
        return str(mismatch)
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        return f"database: {type(error).__name__}"
    return None


class _Server(uvicorn.Server):
    """A uvicorn server that leaves the signals to the process it is part of."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _bind(host: str, port: int) -> socket.socket:
    """A socket on the address."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise CannotListen(f"cannot listen on {host}:{port}: {error.strerror}") from None
    return listening


async def serve(app: ASGIApp, *, host: str, port: int, stop: asyncio.Event) -> None:
    """Serve until stop is set, then let running requests end (at most 5 s).

    Raises CannotListen when the port is taken.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=5,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[_bind(host, port)]), name="http-server")
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
    finally:
        stopping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stopping
    if not stop.is_set():
        raise RuntimeError(f"the server on {host}:{port} ended by itself")


def stop_on_signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


def run_process(settings_class: type[S], run: Callable[[S], Coroutine[Any, Any, None]]) -> None:
    """Read the settings, log as JSON, run until it ends; exits 1 with one line when it cannot start."""
    settings = settings_class.load()
    json_logging.configure(settings.service, settings.log_level)
    try:
        with otlp.exporting(settings.service):
            asyncio.run(run(settings))
    except (SchemaMismatch, UnsafeDatabase, CannotListen, asyncpg.PostgresError) as reason:
        log.error("cannot start: %s", reason)  # noqa: TRY400  # the reason is for an operator, who needs no traceback
        raise SystemExit(1) from None
