"""Stack of `pulse chaos traces`: a server, five services as real processes, and a tenant with rule and webhook."""

import asyncio
import base64
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import asyncpg
import httpx

from services.cli import database
from services.cli.errors import CommandFailed
from services.cli.migrate import migrate
from services.cli.signing_key import AUDIENCE, ISSUER, SigningKey
from services.cli.tenant import create_tenant
from services.local.postgres.server import EmbeddedPostgres
from services.local.stack.supervise import Child, Supervisor
from services.shared import db, tracing
from tests.chaos.processes import inherited, service_spec
from tests.support.processes import free_ports

TENANT = "chaos"
API = "ui_iot"
VICTIMS: Final = (API, "evaluator_iot", "dispatcher", "delivery_worker")
SERVICES: Final = (*VICTIMS, "ops_worker")
READY_SECONDS = 60.0
SECRET = f"whsec_{base64.b64encode(bytes(24)).decode()}"
_ACTOR = db.Actor(type="service", id="local_stack", name="pulse chaos traces")


@dataclass(slots=True)
class TraceStack:
    """Running stack. url: of the database, as a superuser."""

    url: str
    key: SigningKey
    supervisor: Supervisor
    ports: Mapping[str, int]
    children: dict[str, Child] = field(default_factory=dict)

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.ports[API]}"

    async def connect(self) -> asyncpg.Connection:
        """Return a superuser's connection."""
        return await asyncpg.connect(self.url, command_timeout=300)

    async def kill(self, name: str) -> None:
        """Kill the process with SIGKILL as soon as it runs. The supervisor restarts it."""
        while True:
            pid = self.children[name].pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
                return
            await asyncio.sleep(0.02)

    async def until_ready(self) -> None:
        """Wait until all are ready. Raises CommandFailed with the name of one that does not become ready."""
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while waiting := [child for child in self.children.values() if not child.ready]:
            if asyncio.get_running_loop().time() > deadline:
                raise CommandFailed(f"{waiting[0].spec.name} is not ready: see {waiting[0].spec.log}")
            await asyncio.sleep(0.05)


@asynccontextmanager
async def open_trace_stack(root: Path, *, devices: int, sink_url: str) -> AsyncIterator[TraceStack]:
    """Run a stack below a directory that the server's user can enter, and stop all processes at the end."""
    server = EmbeddedPostgres(root / "postgres")
    await asyncio.to_thread(server.start)
    supervisor = Supervisor(lambda: None, wait=lambda _failures: 0.1)
    try:
        await migrate(server.url(), inherited(), say=lambda _line: None)
        async with database.open_database(database.as_role(server.url(), "pulse_app")) as pool:
            await _make_tenant(pool, devices=devices, sink_url=sink_url)
        stack = TraceStack(server.url(), SigningKey(root / "keys"), supervisor, free_ports(SERVICES))
        async with httpx.AsyncClient(trust_env=False) as client:
            for name in SERVICES:
                spec = service_spec(
                    name,
                    f"services.{name}",
                    port=stack.ports[name],
                    log=root / "log" / f"{name}.log",
                    settings=_settings(stack, root, name),
                    client=client,
                )
                stack.children[name] = supervisor.start(spec)
            await stack.until_ready()
            yield stack
            await supervisor.stop(SERVICES)
    finally:
        await supervisor.stop(SERVICES)
        await asyncio.to_thread(server.stop)


def _settings(stack: TraceStack, root: Path, name: str) -> dict[str, str]:
    return {
        "DATABASE_URL": database.as_role(stack.url, "pulse_app"),
        "OPS_DATABASE_URL": database.as_role(stack.url, "pulse_ops"),
        "PORT": str(stack.ports[name]),
        "LOG_LEVEL": "WARNING",
        "JWKS_FILE": str(stack.key.jwks_file),
        "JWT_ISSUER": ISSUER,
        "OIDC_AUDIENCE": AUDIENCE,
        "AUDIT_SPOOL_DIR": str(root / "spool"),
        "AUDIT_KEY_FILE": str(root / "keys" / "signing.key"),
        "AUDIT_ANCHOR_DIR": str(root / "checkpoints"),
        "ALLOW_PRIVATE_DESTINATIONS": "true",
        # Short times, so that the run does not wait for leases and retries.
        "POLL_SECONDS": "0.5",
        "DELIVERY_LEASE_SECONDS": "2",
        "DELIVERY_TIMEOUT_SECONDS": "0.9",
        "DELIVERY_REAP_SECONDS": "0.5",
        "DELIVERY_BACKOFF_SECONDS": "0.1",
        "DELIVERY_BACKOFF_MAX_SECONDS": "1",
        "DELIVERY_CHANNEL_CONCURRENCY": "32",
        "HEALTH_SECONDS": "3600",
    }


async def _make_tenant(pool: db.Pool, *, devices: int, sink_url: str) -> None:
    await create_tenant(pool, TENANT, "Chaos")
    with tracing.use_trace_id(None):
        async with db.act(pool, tenant_id=TENANT, actor=_ACTOR, service="local_stack") as connection:
            for number in range(devices):
                body = {"device_id": f"device-{number}", "name": f"Device {number}"}
                await connection.execute("select ingest.create_device($1)", body)
            rule = {"name": "hot", "metric": "heat", "operator": ">", "threshold": 80, "severity": "critical"}
            await connection.execute("select evaluator.create_rule($1)", rule)
            channel = {"name": "sink", "kind": "webhook", "config": {"url": f"{sink_url}/hook", "secret": SECRET}}
            made = await connection.fetchval("select delivery.create_channel($1)", channel)
            route = {"name": "all", "channel_id": made["channel_id"]}
            await connection.execute("select dispatcher.create_route($1)", route)
