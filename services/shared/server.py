"""The status server of every process: /metrics, /livez, /readyz and /health."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import asyncpg
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from services.shared.connecting.fitness import SchemaMismatch, check_revision
from services.shared.db import UNAVAILABLE, Pool, outage, write_fault
from services.shared.door import Limits
from services.shared.listening import bind, by_port, serve_on
from services.shared.metrics import Joined, ProcessMetrics, QueueGauges, Scrape, choose_format, metrics_route
from services.shared.settings import Settings
from services.shared.web import HostCheck, Hosts, SecureHeaders, ServerTls

# A probe must be answered before its sender gives up. Kubernetes' default is 1 s.
PROBE_SECONDS = 0.9


def program_version() -> str:
    """Return the version of this checkout."""
    try:
        return version("pulse-fleet-alerting")
    except PackageNotFoundError:
        return "0.1.0"


@dataclass(slots=True)
class Process:
    """The running process as its status routes see it."""

    settings: Settings
    metrics: ProcessMetrics
    pool: Pool | None = None
    probe: Callable[[], Awaitable[str | None]] | None = None
    """Returns why the database cannot be used, or None. For a process without a pool."""
    scrape: Scrape | None = None
    """Renders /metrics if it shows more than the process's own registry."""
    away: str | None = None
    """Why the database cannot be used yet, while the process waits for it at its start."""
    ready: bool = False
    stopping: bool = False
    counters: dict[str, int] = field(default_factory=lambda: {"passes": 0, "rows": 0, "errors": 0})
    last_pass_at: datetime | None = None
    facts: dict[str, Callable[[], Any]] = field(default_factory=dict)
    """Further members of /health, by name."""
    failing: dict[str, str] = field(default_factory=dict)
    """Loops whose passes fail again and again, with the last reason."""
    faults: list[Callable[[], str | None]] = field(default_factory=list)
    """Each returns why part of the work makes no progress, or None."""
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    started_monotonic: float = field(default_factory=time.monotonic)

    @property
    def service(self) -> str:
        """Name of the service."""
        return self.settings.service

    async def queues(self) -> list[dict[str, Any]]:
        """Return depth and age of this service's queues, or an empty list while the database does not answer."""
        if self.pool is None:
            return []
        try:
            # The time given to acquire() also limits release(), which could otherwise wait for a hung server forever.
            async with self.pool.acquire(timeout=PROBE_SECONDS) as connection:
                rows = await connection.fetch(
                    "select queue_name, depth, oldest_age_seconds from api.queues where service = $1",
                    self.service,
                    timeout=PROBE_SECONDS,
                )
        except (*UNAVAILABLE, asyncpg.PostgresError):
            return []
        return [dict(row) for row in rows]


def _metrics_route(process: Process) -> Route:
    async def scrape(request: Request) -> tuple[bytes, str]:
        gauges = QueueGauges(process.service, await process.queues())
        encode, content_type = choose_format(request.headers.get("accept", ""))
        # In a thread: a client that tries many methods and paths creates series that take half a second to render.
        return await asyncio.to_thread(encode, Joined(process.metrics.registry, gauges)), content_type

    return metrics_route(process.scrape or scrape, process.settings.metrics_token)


def status_routes(process: Process) -> list[Route]:
    """Return the routes of every process, for any Starlette or FastAPI application.

    /metrics is not among them when it has its own port.
    """
    settings = process.settings
    shows_metrics = settings.serve_metrics and settings.metrics_port is None
    return [*([_metrics_route(process)] if shows_metrics else []), *_probe_routes(process)]


def _probe_routes(process: Process) -> list[Route]:
    async def livez(_request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_request: Request) -> Response:
        fault = await readiness_fault(process)
        return PlainTextResponse("ok\n") if fault is None else PlainTextResponse(fault + "\n", status_code=503)

    async def health(_request: Request) -> Response:
        fault = await readiness_fault(process) or _progress_fault(process)
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
                **{name: show() for name, show in process.facts.items()},
            }
        )

    return [
        Route("/livez", livez, include_in_schema=False),
        Route("/healthz", livez, include_in_schema=False),
        Route("/readyz", readyz, include_in_schema=False),
        Route("/health", health, include_in_schema=False),
    ]


def hosts_of(settings: Settings) -> Hosts:
    """Return the names that a process answers to."""
    return Hosts.of(settings.allowed_hosts, settings.host, settings.metrics_host)


def status_app(process: Process) -> ASGIApp:
    """Return the application of a process that serves nothing but its status."""
    return _guarded(process, status_routes(process))


def _guarded(process: Process, routes: list[Route]) -> ASGIApp:
    """Return an application of the routes, with the check of Host and the security headers around it."""
    app = Starlette(routes=routes)
    # A redirect would be built from the Host that the client claims.
    app.router.redirect_slashes = False
    return SecureHeaders(HostCheck(app, hosts_of(process.settings)))


async def readiness_fault(process: Process) -> str | None:
    """Return why the process should get no work now, or None."""
    if process.stopping:
        return "stopping"
    if process.probe is not None and process.ready:
        return await process.probe()
    if process.pool is None or not process.ready:
        return f"starting: {process.away}" if process.away else "starting"
    return await _database_fault(process.pool)


def _progress_fault(process: Process) -> str | None:
    """Return why a ready process makes no progress, or None."""
    faults = [f"{operation}: {reason}" for operation, reason in process.failing.items()]
    faults += [fault for show in process.faults if (fault := show()) is not None]
    return "; ".join(faults) or None


async def _database_fault(pool: Pool) -> str | None:
    try:
        async with pool.acquire(timeout=PROBE_SECONDS) as connection:
            await check_revision(connection, seconds=PROBE_SECONDS)
            fault = await write_fault(pool, connection, seconds=PROBE_SECONDS)
    except SchemaMismatch as mismatch:
        return str(mismatch)
    except (*UNAVAILABLE, asyncpg.PostgresError) as error:
        return f"database: {type(error).__name__}: {outage(error) or 'it refuses'}"
    return None if fault is None else f"database: the server {fault}"


async def serve(app: ASGIApp, *, host: str, port: int, stop: asyncio.Event) -> None:
    """Serve until stop is set, then wait up to 5 s for running requests. Raises CannotListen."""
    await serve_on([bind(host, port)], app, stop=stop)


async def serve_process(
    process: Process, app: ASGIApp, *, stop: asyncio.Event, shared: asyncio.Event | None = None
) -> None:
    """Serve the application of a process until stop is set, with /metrics there or on its own port.

    shared: an event before which the port accepts nothing, because other processes serve it. The metrics port then
    answers the probes of this process, because any process may answer on the shared port. Raises CannotListen.
    """
    settings = process.settings
    sockets: list[socket.socket] = [bind(settings.host, settings.port, reuse_port=shared is not None)]
    if settings.metrics_port is not None:
        sockets.append(bind(settings.metrics_host or settings.host, settings.metrics_port))
        routes = [
            *([_metrics_route(process)] if settings.serve_metrics else []),
            *(_probe_routes(process) if shared is not None else []),
        ]
        app = by_port(settings.metrics_port, _guarded(process, routes), app)
    await serve_on(
        sockets,
        app,
        stop=stop,
        limits=Limits.of(settings),
        registry=process.metrics.registry,
        tls=ServerTls.of(settings.tls_cert_file, settings.tls_key_file),
        shared=shared,
    )
