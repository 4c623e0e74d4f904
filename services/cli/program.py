"""`pulse`: the one command of a checkout. Each command does its work in services.local and fails with one line."""

import asyncio
import os
import sys
from typing import Annotated

import orjson
import typer
from rich.console import Console

from services.cli import database
from services.cli.audit.commands import app as audit_app
from services.cli.bench import become_benchmark, benchmark_names
from services.cli.checks import run_checks, run_mutations
from services.cli.errors import LocalError
from services.cli.home import Home
from services.cli.journey import read_timeline
from services.cli.key import app as key_app
from services.cli.lock import AlreadyHeldError
from services.cli.metrics import app as metrics_app
from services.cli.migrate import migrate as run_migration
from services.cli.psql import RoleSuffix, become_psql
from services.cli.secrets import app as secrets_app
from services.cli.state_file import NotRunningError, running_state
from services.cli.tenant import app as tenant_app
from services.cli.token import app as token_app
from services.cli.waterfall import waterfall_table
from services.local.postgres.server import EmbeddedPostgres
from services.local.stack.roster import DEFAULT_PORT_BASE, HIGHEST_PORT_BASE, MOST_UI_PROCESSES, Ports
from services.local.stack.screen import Screen, state_table
from services.local.stack.stack import Options, run_stack
from services.shared.tracing import parse_trace_id
from services.shared.visible_text import escape_json, terminal_text
from tests.chaos.app import app as chaos_app

app = typer.Typer(
    help="Alerting for fleets of IoT devices, on one machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(tenant_app, name="tenant")
app.add_typer(token_app, name="token")
app.add_typer(key_app, name="key")
app.add_typer(audit_app, name="audit")
app.add_typer(metrics_app, name="metrics")
app.add_typer(secrets_app, name="secrets")
app.add_typer(chaos_app, name="chaos")
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command()
def up(
    *,
    port_base: Annotated[
        int, typer.Option(min=1, max=HIGHEST_PORT_BASE, help="Services use the ports that follow this one.")
    ] = DEFAULT_PORT_BASE,
    demo: Annotated[bool, typer.Option(help="Seed a tenant and run a simulated fleet.")] = True,
    ui_processes: Annotated[
        int, typer.Option(min=1, max=MOST_UI_PROCESSES, help="Processes of the HTTP API, which share its port.")
    ] = 1,
    devices: Annotated[int, typer.Option(min=1, max=100_000, help="Devices of the simulated fleet.")] = 20,
    rate: Annotated[float, typer.Option(min=0, max=1_000_000, help="Readings a second of the whole fleet.")] = 20.0,
) -> None:
    """Start everything on this machine and run until Ctrl-C.

    Without PULSE_DATABASE_URL an embedded Postgres is used, for trying Pulse out and developing it, not for production.
    """
    ports = Ports(port_base, os.environ.get("PULSE_HOST") or "127.0.0.1", ui_processes)
    options = Options(ports, demo=demo and database.given_url() is None, devices=devices, rate=rate)
    run_stack(Home.find(), options, Screen(_console()))


@app.command()
def status(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the processes of the running stack.

    Exits with 1 when it does not run or one of them is not ready.
    """
    processes = running_state(Home.find()).processes
    if as_json:
        shown = [{name: getattr(process, name) for name in process.public} for process in processes]
        print(orjson.dumps({"processes": shown}).decode())
    else:
        _console().print(state_table(processes))
    if not all(process.ready for process in processes):
        raise typer.Exit(1)


@app.command(context_settings=_PASS_ON)
def psql(
    context: typer.Context,
    *,
    suffix: Annotated[
        RoleSuffix, typer.Option("--as", help="Database role; the owner may change everything.")
    ] = "operator",
) -> None:
    """Open psql as an operator, or as another role of Pulse.

    Arguments after -- go to psql.
    """
    become_psql(Home.find(), context.args, suffix=suffix)


@app.command()
def trace(
    trace_id: Annotated[str, typer.Argument(metavar="ID", help="32 hex digits, or a UUID.")],
    *,
    tenant: Annotated[str, typer.Option(help="Tenant whose rows are shown.")] = "demo",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, as the API gives it.")] = False,
) -> None:
    """Tell the story of one trace id, from request to webhook."""
    canonical = parse_trace_id(trace_id.strip().lower())
    if canonical is None:
        raise LocalError(f"{trace_id} is no trace id: it takes 32 hex digits, or a UUID")

    async def read() -> list[dict[str, object]]:
        async with database.open_database(database.ui_url(Home.find())) as pool:
            return await read_timeline(pool, tenant_id=tenant, trace_id=canonical)

    rows = asyncio.run(read())
    if not rows:
        raise LocalError(f"tenant {tenant} has nothing with trace id {canonical}")
    if as_json:
        print(
            escape_json(
                orjson.dumps({"trace_id": canonical, "truncated": False, "steps": rows}, option=orjson.OPT_UTC_Z)
            ).decode()
        )
        return
    console = _console()
    console.print(waterfall_table(rows, width=console.width if sys.stdout.isatty() else None))


@app.command()
def migrate(
    *,
    set_passwords: Annotated[
        bool, typer.Option("--set-passwords", help="Change the passwords of roles that exist to PULSE_*_PASSWORD.")
    ] = False,
) -> None:
    """Bring the database up to this checkout.

    Makes the roles, runs the revisions, applies the SQL layer.
    """
    home = Home.find()
    env = dict(os.environ)
    try:
        url = database.migration_url(home)
    except NotRunningError:
        with EmbeddedPostgres(home.postgres) as server:
            client = database.without_client_variables(env)
            asyncio.run(run_migration(server.url(), client, say=print, set_passwords=set_passwords))
        return
    asyncio.run(run_migration(url, env, say=print, set_passwords=set_passwords))


@app.command(context_settings=_PASS_ON)
def test(
    context: typer.Context,
    *,
    everything: Annotated[bool, typer.Option("--all", help="Include the tests marked slow.")] = False,
    mutations: Annotated[bool, typer.Option("--mutations", help="Measure the strength of the tests instead.")] = False,
) -> None:
    """Run ruff, mypy, import-linter and pytest.

    Arguments after -- go to pytest. Every tool runs; the exit status is that of the first that failed.

    With --mutations, apply the faults cataloged in tests/mutations one by one and run the tests that must catch each.
    Arguments after -- select mutations; --mutations -- --help shows them. It takes about an hour.
    """
    raise typer.Exit(run_mutations(context.args) if mutations else run_checks(context.args, slow=everything))


@app.command(context_settings=_PASS_ON)
def bench(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(benchmark_names())}.")],
) -> None:
    """Measure Pulse beside a reference in the same run.

    Arguments after the name go to the benchmark; NAME -- --help shows them.
    """
    become_benchmark(name, context.args)


def main() -> None:
    """Run a command; whatever goes wrong is one line, and a traceback only with PULSE_DEBUG=1."""
    try:
        app(prog_name="pulse")
    except AlreadyHeldError as error:
        _fail(f"already running, process {error.pid}: ./pulse status shows it", status=2)
    except LocalError as error:
        _fail(str(error), status=error.status)
    except BrokenPipeError:
        # Whoever read our output has read enough; the interpreter must not try to flush the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if os.environ.get("PULSE_DEBUG"):
            raise
        _fail(f"internal error: {type(error).__name__}: {error} (PULSE_DEBUG=1 shows where)")


def _console() -> Console:
    """The terminal, or a file or pipe that takes long lines."""
    return Console(width=None if sys.stdout.isatty() else 160)


def _fail(message: str, *, status: int = 1) -> None:
    print(terminal_text(f"pulse: {' '.join(message.split())}"), file=sys.stderr)
    sys.exit(status)
