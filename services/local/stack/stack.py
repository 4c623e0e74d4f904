"""The stack of `pulse up`: all processes on one machine, from an empty directory to the first delivered alert.

The order of the start, and below it of the stop:
    database ─▶ roles and migrations ─▶ seed ─▶ services ready ─▶ fleet ─▶ first journey ─▶ hints ─▶ wait
    fleet ─▶ services ─▶ sink and database
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

import httpx

from services.cli import database
from services.cli.errors import CommandFailed
from services.cli.home import PROGRAM, Home
from services.cli.lock import hold
from services.cli.migrate import migrate
from services.cli.secret_keys import make_keys
from services.cli.signing_key import SigningKey, uses_own_keys
from services.cli.state_file import ProcessState, StackState, write_state
from services.local.demo.first_journey import first_journey, journey_table
from services.local.demo.seed import seed, sink_secret
from services.local.postgres.server import EmbeddedPostgres
from services.local.process.log_files import last_message, trim
from services.local.stack import hints
from services.local.stack.obstacles import check_free, stop_leftovers
from services.local.stack.roster import FLEET, MODULES, POSTGRES, ROLES, SERVICES, SINK, Ports, Roster, kind_of
from services.local.stack.screen import Screen
from services.local.stack.supervise import Child, Supervisor

READY_SECONDS = 90.0
SHORT_RUNS_THAT_MEAN_NEVER = 4
JOURNEY_SECONDS = 15.0
TRIM_SECONDS = 5.0

_NO_TLS = (
    "pulse up checks its processes over plain HTTP: unset PULSE_TLS_CERT_FILE and PULSE_TLS_KEY_FILE here, and set"
    " them where you start each process yourself"
)
# Settings that pulse up refuses. Ignoring them could open /metrics against the operator's intention.
_REFUSED = {
    "PULSE_METRICS_PORT": "PULSE_METRICS_PORT names one port and the stack has six processes: unset it here, and set"
    " it where you start each process yourself",
    "PULSE_TLS_CERT_FILE": _NO_TLS,
    "PULSE_TLS_KEY_FILE": _NO_TLS,
    "PULSE_UI_WORKERS": f"PULSE_UI_WORKERS was replaced: unset it, and use {PROGRAM} up --ui-processes N",
}


@dataclass(frozen=True, slots=True)
class Options:
    """Options of `pulse up`. rate: readings per second."""

    ports: Ports
    demo: bool
    devices: int
    rate: float


def run_stack(home: Home, options: Options, screen: Screen) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP. Raises CommandFailed, and AlreadyHeldError if a stack is running."""
    for name, reason in _REFUSED.items():
        if os.environ.get(name):
            raise CommandFailed(reason)
    with hold(home.lock):
        stop_leftovers(home)
        chosen = options.ports
        wanted = {name: chosen[name] for name in [*SERVICES, *([SINK] if options.demo else [])]}
        if chosen.ui_processes > 1:
            wanted |= {f"the metrics of {name}": chosen.metrics(name) for name in chosen.services if "ui_iot" in name}
        check_free(wanted, host=chosen.host)
        asyncio.run(Stack(home, options, screen).run())


class Stack:
    """One run of the stack."""

    def __init__(self, home: Home, options: Options, screen: Screen) -> None:
        self._home = home
        self._options = options
        self._screen = screen
        self._server = EmbeddedPostgres(home.postgres) if database.given_url() is None else None
        self._supervisor = Supervisor(self._changed)

    async def run(self) -> None:
        """Start, wait for a signal, stop."""
        async with httpx.AsyncClient(trust_env=False) as client:
            roster = Roster(self._home, self._options.ports, client, embedded=self._server is not None)
            work = asyncio.create_task(self._work(roster, client))
            trimming = asyncio.create_task(self._trim_logs())
            self._stop_on_signals(work)
            self._screen.open()
            try:
                with contextlib.suppress(asyncio.CancelledError):
                    await work
            finally:
                trimming.cancel()
                await self._shut_down()
                self._screen.close()

    async def _work(self, roster: Roster, client: httpx.AsyncClient) -> None:
        url = await self._start_database(roster)
        if self._server is not None or database.may_migrate(url):
            await migrate(url, roster.environment(), say=lambda line: self._screen.note(f"migrate: {line}"))
        # Services use the login that migrates only if there is no other.
        given_url = database.given_url()
        ui_url = database.given_url("PULSE_UI_DATABASE_URL") or given_url or database.as_role(url, "pulse_ui")
        if not os.environ.get("PULSE_SECRETS_KEY_FILE"):
            make_keys(self._home.channel_secrets)
        children = []
        if self._options.demo:
            async with database.open_database(ui_url) as pool:
                sink_url = self._options.ports.url(SINK)
                await seed(pool, self._home, sink_url=sink_url, devices=self._options.devices)
            children.append(self._supervisor.start(roster.sink(secret=sink_secret(self._home))))
        for name in self._options.ports.services:
            role_url = given_url or database.as_role(url, ROLES[kind_of(name)])
            spec = roster.service(name, database_url=role_url, demo=self._options.demo)
            children.append(self._supervisor.start(spec))
        await self._until_ready(children)
        self._screen.note("Pulse is ready.")
        if self._options.demo:
            self._supervisor.start(roster.fleet(rate=self._options.rate))
            await self._show_first_journey(ui_url, client)
        self._show_hints()
        await asyncio.Event().wait()

    async def _start_database(self, roster: Roster) -> str:
        """Start the embedded server, unless a database is configured, and return the URL to migrate with."""
        if self._server is None:
            return database.migration_url(self._home)
        await self._until_ready([self._supervisor.start(roster.postgres(self._server))])
        await asyncio.to_thread(self._server.ensure_database, "pulse")
        self._changed()
        return self._server.url()

    async def _until_ready(self, children: Sequence[Child]) -> None:
        """Wait until all are ready. Raises CommandFailed with the last log message of a process that cannot start."""
        deadline = asyncio.get_running_loop().time() + READY_SECONDS
        while waiting := [child for child in children if not child.was_ready]:
            for child in waiting:
                if child.restarts >= SHORT_RUNS_THAT_MEAN_NEVER or asyncio.get_running_loop().time() > deadline:
                    raise CommandFailed(f"{child.spec.name} does not become ready: {_reason(child)}")
            await asyncio.sleep(0.05)

    async def _show_first_journey(self, ui_url: str, client: httpx.AsyncClient) -> None:
        sink_url = self._options.ports.url(SINK)
        async with database.open_database(ui_url) as pool:
            found = await first_journey(pool, client, sink_url=sink_url, seconds=JOURNEY_SECONDS)
        if found is None:
            self._screen.note(
                f"No alert was delivered within {JOURNEY_SECONDS:.0f} s: see the logs in {self._home.root}/log."
            )
            return
        trace_id, steps = found
        self._screen.note(f"\nThe first alert's journey, trace {trace_id}:")
        self._screen.note(journey_table(steps))

    def _show_hints(self) -> None:
        demo = self._options.demo
        self._screen.note()
        for label, url in hints.addresses(self._options.ports, demo=demo):
            self._screen.note(f"{label:<18} {url}")
        if demo and uses_own_keys():
            token = SigningKey(self._home.keys).token(tenant_id="demo", role="admin")
            self._screen.note(f"{'Token (12 hours)':<18} {token}")
        if not demo:
            self._screen.note(f"\n{hints.FIRST_TENANT}")
        for number, (title, commands) in enumerate(hints.checks(self._options.ports, self._home, demo=demo), start=1):
            self._screen.note("\n".join([f"\n{number}. {title}:", *(f"   {command}" for command in commands)]))
        self._screen.note("\nCtrl-C stops all processes and keeps the data.")

    def _stop_on_signals(self, work: "asyncio.Task[None]") -> None:
        def stop() -> None:
            if not work.cancel():
                self._supervisor.hurry()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop)

    async def _shut_down(self) -> None:
        """Stop the processes that bring work first and the database last."""
        self._screen.note("Stopping.")
        await self._supervisor.stop([FLEET])
        await self._supervisor.stop(self._options.ports.services)
        await self._supervisor.stop([SINK, POSTGRES])
        if self._server is not None:
            self._server.release()
        self._home.state.unlink(missing_ok=True)

    def _changed(self) -> None:
        children = self._supervisor.children
        self._screen.show(children)
        started = any(child.was_ready for child in children)
        state = StackState(os.getpid(), self._options.ports.base, [_state(child) for child in children])
        if self._server is not None and started:
            state = replace(state, migration_url=self._server.url(), bin_dir=str(self._server.bin_dir))
        write_state(self._home, state)

    async def _trim_logs(self) -> None:
        while True:
            await asyncio.sleep(TRIM_SECONDS)
            for child in self._supervisor.children:
                await asyncio.to_thread(trim, child.spec.log)


def _reason(child: Child) -> str:
    message = last_message(child.spec.log) if child.ran or not child.fault else ""
    return f"{message} (see {child.spec.log})" if message else child.fault or "it does not answer"


def _state(child: Child) -> ProcessState:
    name = child.spec.name
    return ProcessState(name, child.pid, child.spec.port, child.ready, child.restarts, MODULES.get(kind_of(name)))
