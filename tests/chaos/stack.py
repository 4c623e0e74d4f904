"""Stack under test: a durable server, a proxy before it, and the API and two sealers as real processes."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import httpx
import orjson

from services.cli import database
from services.cli.errors import CommandFailed
from services.cli.migrate import migrate
from services.cli.signing_key import AUDIENCE, ISSUER, SigningKey
from services.cli.tenant import create_tenant
from services.local.postgres.server import EmbeddedPostgres
from services.local.process.command import Command
from services.local.stack.roster import POSTGRES_STOP
from services.local.stack.supervise import Child, Spec, Supervisor
from tests.chaos.cuts import Cuts
from tests.chaos.disk import SpoolDisk
from tests.chaos.processes import PROBE_SECONDS, inherited, service_spec
from tests.chaos.proxy import MessageProxy
from tests.support.processes import free_ports

TENANT = "chaos"
API, SEALERS = "ui_iot", ("sealer-1", "sealer-2")
POSTGRES = "postgres"
READY_SECONDS = 60.0
DATABASE_SECONDS = 1.0
"""PULSE_AUDIT_DATABASE_SECONDS of the run, shorter than most stalls so that the spool is used."""
LEASE_SECONDS = 1.5


@dataclass(slots=True)
class ChaosStack:
    """Running stack, with access to everything that faults act on."""

    root: Path
    disk: SpoolDisk
    server: EmbeddedPostgres
    proxy: MessageProxy
    cuts: Cuts
    key: SigningKey
    supervisor: Supervisor
    client: httpx.AsyncClient
    ports: Mapping[str, int]
    children: dict[str, Child] = field(default_factory=dict)
    may_start_server: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def api_url(self) -> str:
        """Address of the API."""
        return f"http://127.0.0.1:{self.ports[API]}"

    @property
    def anchors(self) -> Path:
        """Directory of the kept checkpoints."""
        return self.root / "checkpoints"

    @property
    def key_file(self) -> Path:
        """Key file of the sealers."""
        return self.root / "keys" / "signing.key"

    @property
    def auditor_url(self) -> str:
        """URL as pulse_auditor, without the proxy."""
        return database.as_role(self.server.url(), "pulse_auditor")

    async def connect(self) -> asyncpg.Connection:
        """Return a superuser's connection, past the proxy."""
        return await asyncpg.connect(self.server.url(), timeout=PROBE_SECONDS, command_timeout=60)

    async def running_pid(self, name: str) -> int:
        """Return the pid of the process, after its restart if it is not running."""
        while True:
            pid = self.children[name].pid
            if pid is not None:
                return pid
            await asyncio.sleep(0.02)

    async def until_ready(self, *names: str, seconds: float = READY_SECONDS) -> None:
        """Wait until processes are ready. Raises CommandFailed with the name of one that does not become ready."""
        deadline = asyncio.get_running_loop().time() + seconds
        while waiting := [self.children[name] for name in names if not self.children[name].ready]:
            if asyncio.get_running_loop().time() > deadline:
                child = waiting[0]
                raise CommandFailed(f"{child.spec.name} is not ready after {seconds:.0f} s: see {child.spec.log}")
            await asyncio.sleep(0.05)

    async def start(self) -> None:
        """Start everything in an empty directory and wait until it is ready."""
        self.may_start_server.set()
        self._keep(Spec(POSTGRES, None, self._log(POSTGRES), self._server_command, self._server_ready, POSTGRES_STOP))
        await self.until_ready(POSTGRES)
        await asyncio.to_thread(self.server.ensure_database, "pulse")
        await migrate(self.server.url(), inherited(), say=lambda _line: None)
        async with database.open_database(self._direct_url) as pool:
            await create_tenant(pool, TENANT, "Chaos")
        await self._shorten_recovery()
        for name in (API, *SEALERS):
            self._keep(self._service(name))
        await self.until_ready(API, *SEALERS)

    async def _shorten_recovery(self) -> None:
        """Write the files back by one call to the kernel; one for each of 1,000 files would cost seconds a crash."""
        connection = await self.connect()
        try:
            await connection.execute("alter system set recovery_init_sync_method = 'syncfs'")
            await connection.execute("checkpoint")
        finally:
            await connection.close()

    @property
    def _direct_url(self) -> str:
        return database.as_role(self.server.url(), "pulse_app")

    def _keep(self, spec: Spec) -> None:
        self.children[spec.name] = self.supervisor.start(spec)

    def _log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    async def _server_command(self) -> Command:
        await self.may_start_server.wait()
        return await asyncio.to_thread(self.server.prepare)

    async def _server_ready(self, pid: int) -> bool:
        return self.server.is_ready(pid)

    def _service(self, name: str) -> Spec:
        module = "services.ui_iot" if name == API else "services.ops_worker"
        settings = self._settings(name)
        return service_spec(
            name, module, port=self.ports[name], log=self._log(name), settings=settings, client=self.client
        )

    def _settings(self, name: str) -> dict[str, str]:
        return {
            "DATABASE_URL": self.proxy.url,
            "OPS_DATABASE_URL": database.as_role(self.proxy.url, "pulse_ops"),
            "PORT": str(self.ports[name]),
            "LOG_LEVEL": "WARNING",
            "COMMAND_TIMEOUT_SECONDS": "5",
            "JWKS_FILE": str(self.key.jwks_file),
            "JWT_ISSUER": ISSUER,
            "OIDC_AUDIENCE": AUDIENCE,
            "TRUSTED_PROXIES": "127.0.0.0/8",
            # Neither of the two that turn many rows into one or none.
            "AUTH_RATE_LIMIT_PER_MINUTE": "0",
            "AUDIT_FLOOD_ROWS_PER_WINDOW": "0",
            "AUDIT_READ_ROWS_PER_WINDOW": "0",
            "AUDIT_DATABASE_SECONDS": str(DATABASE_SECONDS),
            "AUDIT_SPOOL_DIR": str(self.disk.path),
            "AUDIT_SPOOL_BYTES": str(self.disk.spool_bytes),
            "AUDIT_KEY_FILE": str(self.key_file),
            "AUDIT_ANCHOR_DIR": str(self.anchors),
            "SEAL_LEASE_SECONDS": str(LEASE_SECONDS),
            "HEALTH_TARGETS": orjson.dumps({API: self.api_url}).decode(),
            "HEALTH_FAILURES_TO_ALERT": "1000000",
        }


@asynccontextmanager
async def open_stack(root: Path, disk: SpoolDisk) -> AsyncIterator[ChaosStack]:
    """Run a stack below a directory that the server's user can enter, and stop all processes at the end."""
    server = EmbeddedPostgres(root / "postgres")
    await asyncio.to_thread(server.prepare)
    cuts = Cuts()
    supervisor = Supervisor(lambda: None, wait=lambda _failures: 0.1)
    async with (
        httpx.AsyncClient(trust_env=False) as client,
        MessageProxy(database.as_role(server.url(), "pulse_app"), cuts) as proxy,
    ):
        chosen = free_ports((API, *SEALERS))
        key = SigningKey(root / "keys")
        stack = ChaosStack(root, disk, server, proxy, cuts, key, supervisor, client, chosen)
        try:
            await stack.start()
            yield stack
        finally:
            proxy.resume()
            await supervisor.stop([API, *SEALERS])
            stack.may_start_server.set()
            await supervisor.stop([POSTGRES])
            server.release()
