"""Processes of the stack: command, port, environment and readiness check of each."""

import asyncio
import os
import signal
import sys
from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import orjson

from migrations.role_names import CALLERS
from services.cli.database import without_client_variables
from services.cli.home import CHECKOUT, Home
from services.cli.secret_keys import secrets_key_file
from services.cli.signing_key import AUDIENCE, ISSUER, SigningKey, uses_own_keys
from services.local.postgres.server import EmbeddedPostgres
from services.local.process.command import Command
from services.local.process.tether import tethered
from services.local.stack.supervise import Spec

DEFAULT_PORT_BASE = 8080
MOST_UI_PROCESSES = 32
# The highest port is 65,535: the metrics port of the last API process.
HIGHEST_PORT_BASE = 65_535 - 10 - MOST_UI_PROCESSES
SERVICES = {
    "ui_iot": "services.ui_iot",
    "evaluator_iot": "services.evaluator_iot",
    "dispatcher": "services.dispatcher",
    "delivery_worker": "services.delivery_worker",
    "ops_worker": "services.ops_worker",
    "exporter": "exporter",
}
SINK, FLEET, POSTGRES = "sink", "fleet", "postgres"
MODULES = {**SERVICES, SINK: "services.local.demo.sink", FLEET: "services.local.demo.fleet"}
PROBE_TIMEOUT_SECONDS = 2.0
# The fleet is stopped first, then the services, then sink and database: within 10 s even if all hang.
SERVICE_STOP = ((signal.SIGTERM, 4.4), (signal.SIGKILL, 0.5))
DEMO_STOP = ((signal.SIGTERM, 1.5), (signal.SIGKILL, 0.2))
POSTGRES_STOP = ((signal.SIGINT, 2.5), (signal.SIGQUIT, 0.8))
MIGRATION_SECRETS = (
    "PULSE_MIGRATION_URL",
    *(f"PULSE_{role.upper()}_PASSWORD" for role in CALLERS),
)
"""Variables that the services do not get, because they run with the least privilege."""
ANY_ADDRESS = ("0.0.0.0", "::")  # noqa: S104  compared with, never bound
ROLES = {
    "ui_iot": "pulse_ui",
    "evaluator_iot": "pulse_evaluator",
    "dispatcher": "pulse_dispatcher",
    "delivery_worker": "pulse_delivery",
    "ops_worker": "pulse_ops",
    "exporter": "pulse_exporter",
}
"""Database role of each service."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports of one stack: the services in order from base + 1, then the sink.

    Several API processes (ui_iot, ui_iot-2, …) share a port. Their metrics ports begin at base + 11.
    """

    base: int
    host: str = "127.0.0.1"
    ui_processes: int = 1

    def __getitem__(self, name: str) -> int:
        return self.base + 1 + [*SERVICES, SINK].index(kind_of(name))

    @property
    def services(self) -> list[str]:
        """Names of all processes of services."""
        return [*SERVICES, *(f"ui_iot-{number}" for number in range(2, self.ui_processes + 1))]

    def metrics(self, name: str) -> int:
        """Return the port that serves the metrics of this process only."""
        if kind_of(name) != "ui_iot" or self.ui_processes == 1:
            return self[name]
        return self.base + 10 + int(name.partition("-")[2] or 1)

    def url(self, name: str) -> str:
        """Return the address of a service for callers on this machine."""
        return self._at(self[name])

    def probe_url(self, name: str) -> str:
        """Return the address where one process answers probes."""
        return self._at(self.metrics(name))

    def _at(self, port: int) -> str:
        host = "127.0.0.1" if self.host in ANY_ADDRESS else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"


class Roster:
    """Specs of the processes of one stack. `embedded`: the database is ours, and the caller's PG* do not apply."""

    def __init__(self, home: Home, ports: Ports, client: httpx.AsyncClient, *, embedded: bool) -> None:
        self._home = home
        self._ports = ports
        self._client = client
        self._embedded = embedded

    def service(self, name: str, *, database_url: str, demo: bool) -> Spec:
        """Return the spec of a process of one of the six services."""
        targets = {other: self._ports.probe_url(other) for other in self._ports.services}
        extra = {
            "PULSE_DATABASE_URL": database_url,
            "PULSE_PORT": str(self._ports[name]),
            "PULSE_AUDIT_SPOOL_DIR": os.environ.get("PULSE_AUDIT_SPOOL_DIR") or str(self._home.spool),
            "PULSE_HEALTH_TARGETS": orjson.dumps(targets).decode(),
        }
        kept = {"KEY_FILE": "signing.key", "ANCHOR_DIR": "checkpoints"}
        extra |= {
            f"PULSE_AUDIT_{setting}": os.environ.get(f"PULSE_AUDIT_{setting}") or str(self._home.audit / place)
            for setting, place in kept.items()
        }
        if self._ports.metrics(name) != self._ports[name]:
            extra |= {"PULSE_REUSE_PORT": "true", "PULSE_METRICS_PORT": str(self._ports.metrics(name))}
        if kind_of(name) in ("ui_iot", "delivery_worker"):
            extra["PULSE_SECRETS_KEY_FILE"] = str(secrets_key_file(self._home))
        if self._embedded:
            # The caller's values of these belong to another database.
            roles = (role.removeprefix("pulse_").upper() for role in ROLES.values())
            own_urls = ("PULSE_LISTEN_URL", *(f"PULSE_{role}_DATABASE_URL" for role in roles))
            extra |= dict.fromkeys(own_urls, database_url)
        if demo:
            # The demo's webhooks go to the sink on this machine.
            extra["PULSE_ALLOW_PRIVATE_DESTINATIONS"] = "true"
        if uses_own_keys():
            extra |= {
                "PULSE_JWKS_FILE": str(SigningKey(self._home.keys).jwks_file),
                "PULSE_JWT_ISSUER": ISSUER,
                "PULSE_OIDC_AUDIENCE": AUDIENCE,
            }
        return self._spec(name, [], extra=extra, ready_path="/readyz")

    def sink(self, *, secret: str) -> Spec:
        """Return the spec of the receiver of the demo's webhooks."""
        arguments = ["--port", str(self._ports[SINK])]
        return self._spec(SINK, arguments, extra={"PULSE_SINK_SECRET": secret}, ready_path="/readyz")

    def fleet(self, *, rate: float) -> Spec:
        """Return the spec of the simulated devices."""
        arguments = ["--url", self._ports.url("ui_iot"), "--rate", str(rate), "--file", str(self._home.fleet)]
        return self._spec(FLEET, arguments, extra={}, ready_path=None)

    def postgres(self, server: EmbeddedPostgres) -> Spec:
        """Return the spec of the embedded server, whose restart cleans up after a crash."""

        async def command() -> Command:
            return await asyncio.to_thread(server.prepare)

        async def is_ready(pid: int) -> bool:
            return server.is_ready(pid)

        return Spec(POSTGRES, None, self._home.log(POSTGRES), command, is_ready, POSTGRES_STOP)

    def environment(self) -> dict[str, str]:
        """Return the inherited environment, without PG* variables if the database is embedded."""
        ours = without_client_variables(os.environ) if self._embedded else os.environ
        return {**ours, "PYTHONUNBUFFERED": "1"}

    def _spec(self, name: str, arguments: list[str], *, extra: Mapping[str, str], ready_path: str | None) -> Spec:
        argv = [sys.executable, "-P", "-m", MODULES[kind_of(name)], *arguments]
        inherited = {key: value for key, value in self.environment().items() if key not in MIGRATION_SECRETS}
        env = {**inherited, **extra, "PYTHONPATH": str(CHECKOUT)}

        async def command() -> Command:
            return Command(tethered(argv), env, cwd=str(CHECKOUT))

        async def is_ready(_pid: int) -> bool:
            if ready_path is None:
                return True
            try:
                answer = await self._client.get(self._ports.probe_url(name) + ready_path, timeout=PROBE_TIMEOUT_SECONDS)
            except httpx.HTTPError:
                return False
            return answer.status_code == 200

        port = None if ready_path is None else self._ports[name]
        stop_signals = SERVICE_STOP if kind_of(name) in SERVICES else DEMO_STOP
        return Spec(name, port, self._home.log(name), command, is_ready, stop_signals)


def kind_of(name: str) -> str:
    """Return the service of a process: ui_iot of ui_iot-2."""
    return name.partition("-")[0]
