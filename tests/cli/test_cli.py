"""The command line: help everywhere, one clear line on failure, exit statuses for scripts."""

import getpass
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import asyncpg
import orjson
import pytest
from typer.testing import CliRunner

from services.cli import checks
from services.cli.home import Home
from services.cli.lock import hold
from services.cli.program import COMMANDS, app
from services.cli.state_file import ProcessState, StackState, write_state
from services.shared.write_once import replace
from services.ui_iot.routes.traces import Trace
from tests.support import seed

ROOT = Path(__file__).parents[2]
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
NOWHERE = "postgresql://pulse_app@127.0.0.1:1/pulse"

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def pulse(home: Home) -> Run:
    """A runner for commands with a separate home and only the given settings."""

    def run(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG"))}
        return subprocess.run(
            [sys.executable, "-P", "-m", "services.cli", *arguments],
            check=False,
            cwd="/",
            env={**inherited, "PYTHONPATH": str(ROOT), "PULSE_HOME": str(home.root), **settings},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def assert_one_line(done: "subprocess.CompletedProcess[str]", *, status: int = 1) -> str:
    """Check that it failed as people expect and return what it said."""
    assert done.returncode == status, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("pulse: ")
    return lines[0]


AUDIT = ("audit hold", "audit release", "audit tail")


@pytest.mark.parametrize(
    "command", ["", *COMMANDS, "tenant create", "tenant list", "metrics list", "metrics lint", *AUDIT]
)
def test_every_command_has_help(command: str) -> None:
    done = CliRunner().invoke(app, [*command.split(), "--help"], prog_name="pulse")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"Usage: pulse {command}".rstrip())


HEAVY = {"asyncio", "asyncpg", "cryptography", "fastapi", "httpx", "psycopg", "pydantic", "rich", "sqlalchemy"}


def test_help_loads_none_of_the_commands() -> None:
    """Each command is imported when it is called, so help is fast."""
    code = "import sys; from services.cli.program import main\ntry: main()\nfinally: print('LOADED', *sys.modules)"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "--help"],
        check=True,
        cwd="/",
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    shown, _, loaded = done.stdout.partition("LOADED")
    assert [line.split()[0] for line in shown.partition("Commands:")[2].splitlines() if line] == list(COMMANDS)
    assert set(loaded.split()) & HEAVY == set()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_shows_the_first_line_of_each_commands_help(command: str) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], prog_name="pulse").stdout.splitlines()
    assert shown[2].strip() == COMMANDS[command][1]


@pytest.mark.parametrize(
    "arguments",
    [["up", "--no-such-option"], ["up", "--port-base", "70000"], ["token", "--role", "chief"], ["nonsense"]],
)
def test_wrong_use_exits_with_2(pulse: Run, arguments: list[str]) -> None:
    """The last line names the error."""
    done = pulse(*arguments)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["status", "--json"], ["psql"], ["trace", TRACE_ID], ["tenant", "list"], ["metrics", "lint"]],
)
def test_without_a_stack_the_way_out_is_named(pulse: Run, arguments: list[str]) -> None:
    """Commands that need a running stack report how to start it."""
    assert "./pulse up" in assert_one_line(pulse(*arguments))


def test_without_a_database_both_ways_out_are_named(pulse: Run) -> None:
    """Commands that need a database report how to start or name one."""
    for arguments in (["psql"], ["tenant", "list"], ["metrics", "list"]):
        assert "start it with ./pulse up or set PULSE_DATABASE_URL." in assert_one_line(pulse(*arguments))


def test_status_of_a_running_stack(pulse: Run, home: Home) -> None:
    """The output is a table, or JSON of a fixed shape. The status is 1 while a process is not ready."""
    processes = [
        ProcessState("ui_iot", 7, 8081, ready=True, restarts=0, module="services.ui_iot"),
        ProcessState("dispatcher", None, 8083, ready=False, restarts=3, module="services.dispatcher"),
    ]
    with hold(home.lock):
        write_state(home, StackState(os.getpid(), 8080, processes))
        done = pulse("status", "--json")
        assert done.returncode == 1
        assert orjson.loads(done.stdout) == {
            "processes": [
                {"name": "ui_iot", "pid": 7, "port": 8081, "ready": True, "restarts": 0},
                {"name": "dispatcher", "pid": None, "port": 8083, "ready": False, "restarts": 3},
            ]
        }
        shown = pulse("status").stdout
        assert [line.split() for line in shown.splitlines()[1:]] == [
            ["ui_iot", "7", "8081", "ready", "0"],
            ["dispatcher", "-", "8083", "not", "ready", "3"],
        ]
        write_state(home, StackState(os.getpid(), 8080, processes[:1]))
        assert pulse("status").returncode == 0


def test_a_second_up_names_the_running_one(pulse: Run, home: Home) -> None:
    """The running stack stays unchanged."""
    with hold(home.lock):
        assert f"already running, process {os.getpid()}" in assert_one_line(pulse("up"), status=2)


def test_up_names_a_taken_port(pulse: Run) -> None:
    """The check runs before any process starts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        said = assert_one_line(pulse("up", "--port-base", str(port - 1)))
    assert f"port {port} for ui_iot is taken by process {os.getpid()}" in said


def test_up_refuses_a_home_that_is_no_directory(pulse: Run) -> None:
    """Errors of the operating system are one line."""
    assert "/dev/null" in assert_one_line(pulse("up", PULSE_HOME="/dev/null/home"))


def test_a_database_that_is_away_is_one_line(pulse: Run) -> None:
    assert "does not answer" in assert_one_line(pulse("trace", TRACE_ID, PULSE_DATABASE_URL=NOWHERE))
    assert "migration failed" in assert_one_line(pulse("migrate", PULSE_DATABASE_URL=NOWHERE))


def test_token_prints_the_token_alone(pulse: Run) -> None:
    """$(./pulse token) needs this."""
    first = pulse("token", "--tenant", "demo", "--role", "admin")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.count(".") == 2
    assert len(first.stdout.split()) == 1
    assert pulse("token", "--expired").stdout.count(".") == 2


@pytest.mark.slow
async def test_a_token_for_no_tenant_or_no_issuer_is_refused(
    pulse: Run, conn: asyncpg.Connection, app_url: str, home: Home
) -> None:
    """No service would accept such a token. The hint after `tenant create` works."""
    assert "no tenant nosuch" in assert_one_line(pulse("token", "--tenant", "nosuch"))
    assert "refuse tokens for system" in assert_one_line(pulse("token", "--tenant", "system"))
    url = {"PULSE_DATABASE_URL": app_url}
    await seed.tenant(conn, "acme")
    assert pulse("token", "--tenant", "acme", **url).stdout.count(".") == 2
    for tenant in ("nosuch", "demo", "ACME", ""):
        assert f"there is no tenant {tenant}" in assert_one_line(pulse("token", "--tenant", tenant, **url))
    for issuer in ({"PULSE_OIDC_ISSUER": "https://login.example"}, {"PULSE_JWKS_FILE": "/etc/keys.json"}):
        refused = assert_one_line(pulse("token", "--tenant", "acme", **url, **issuer))
        assert "identity provider" in refused
        made = pulse("tenant", "create", f"t{len(issuer)}{next(iter(issuer)).lower()[6:9]}", **url, **issuer)
        assert "./pulse token" not in made.stdout
        assert "identity provider" in made.stdout
    own = {"PULSE_JWKS_FILE": str(home.keys / "jwks.json"), "PULSE_JWT_ISSUER": "pulse-local"}
    assert pulse("token", "--tenant", "acme", **url, **own).stdout.count(".") == 2


def test_token_of_a_device(pulse: Run, home: Home) -> None:
    """Only the demo's devices have stored tokens."""
    replace(home.fleet, orjson.dumps({"devices": [], "tokens": {"probe-1": "pdt_demo_x"}}))
    assert pulse("token", "--device", "probe-1").stdout == "pdt_demo_x\n"
    assert "no device probe-2" in assert_one_line(pulse("token", "--device", "probe-2"))


@pytest.mark.parametrize("wrong", ["xyz", "0" * 32, TRACE_ID[:-1], "'; drop table alerts; --"])
def test_trace_takes_only_a_trace_id(pulse: Run, wrong: str) -> None:
    """Another value would search for a new, empty trace."""
    assert "is no trace id" in assert_one_line(pulse("trace", wrong))


@pytest.mark.slow
async def test_a_tenant_is_made_once_and_listed(pulse: Run, conn: asyncpg.Connection, app_url: str) -> None:
    """The command uses the services' role, and the audit event names the actor. Invalid input is a one-line error."""
    url = {"PULSE_DATABASE_URL": app_url}
    made = pulse("tenant", "create", "acme", "--name", "Acme Ltd", **url)
    assert (made.returncode, made.stderr) == (0, "")
    assert "Tenant acme is created" in made.stdout
    assert pulse("tenant", "create", "plain", **url).returncode == 0
    shown = pulse("tenant", "list", **url)
    assert [line.split(maxsplit=1) for line in shown.stdout.splitlines()] == [
        ["acme", "Acme Ltd"],
        ["plain", "plain"],
        ["system", "Pulse itself"],
    ]
    audited = await conn.fetchrow(
        "select * from audit_log where event_type = 'config.tenant_created' and entity_id = 'acme'"
    )
    assert (audited["actor_name"], audited["source_service"]) == ("pulse tenant create", "local_stack")
    assert audited["trace_id"] is not None

    assert "tenant acme exists already" in assert_one_line(pulse("tenant", "create", "acme", "--name", "Other", **url))
    for wrong in ("Acme", "-acme", "a" * 64, "a_b", "acme\n"):
        assert "is no tenant id" in assert_one_line(pulse("tenant", "create", "--", wrong, **url))
    for wrong, fault in (("", "visible"), (" ", "visible"), ("two\nlines", "U+000A"), ("a\u202eb", "U+202E")):
        assert fault in assert_one_line(pulse("tenant", "create", "new", "--name", wrong, **url))
    assert await conn.fetchval("select count(*) from tenants") == 3


@pytest.mark.slow
async def test_the_limits_of_a_tenant_are_shown_and_set(pulse: Run, conn: asyncpg.Connection, app_url: str) -> None:
    url = {"PULSE_DATABASE_URL": app_url}
    await seed.device(conn)
    assert (
        pulse("tenant", "limit", "acme", "devices", "7", **url).stdout == "The limit devices of tenant acme is now 7.\n"
    )
    again = pulse("tenant", "limit", "acme", "devices", "7", **url)
    assert again.stdout == "The limit devices of tenant acme was 7 already.\n"
    assert pulse("tenant", "limit", "acme", "rules", "0", **url).returncode == 0
    shown = {line.split()[0]: line.split()[1:] for line in pulse("tenant", "limits", "acme", **url).stdout.splitlines()}
    assert shown["devices"] == ["7", "1", "0", "set", "for", "this", "tenant"]
    assert shown["rules"][:3] == ["none", "0", "0"]
    assert shown["channels"] == ["1000", "0", "0"]
    assert "no tenant nosuch" in assert_one_line(pulse("tenant", "limits", "nosuch", **url))
    assert "no limit moons" in assert_one_line(pulse("tenant", "limit", "acme", "moons", "7", **url))
    assert "-1 is no limit" in assert_one_line(pulse("tenant", "limit", "--", "acme", "rules", "-1", **url))
    audited = await conn.fetchrow(
        "select * from audit_log where event_type = 'config.tenant_limit_created' and details::text like '%devices%'"
    )
    assert (audited["actor_type"], audited["actor_name"]) == ("user", "pulse tenant limit")


@pytest.mark.slow
async def test_holds_are_placed_shown_and_released(
    pulse: Run, conn: asyncpg.Connection, role_url: Callable[[str], str]
) -> None:
    """The event names the auditor. A wrong time, number or role is a one-line error."""
    url = {"PULSE_AUDIT_DATABASE_URL": role_url("pulse_auditor")}
    assert pulse("audit", "holds", **url).stdout == "There are no legal holds.\n"
    await conn.execute(
        "insert into audit.tombstones select month::date, 1, 0, 3, now(), 'note'"
        " from unnest(array['2025-04-01', '2025-05-01']) month"
    )
    placed = pulse("audit", "hold", "--from", "2025-05-31", "--reason", "case [7] of :x:", **url)
    assert (placed.returncode, placed.stderr) == (0, "")
    assert placed.stdout.splitlines() == [
        "Hold 1 is in force until ./pulse audit release 1 --reason … ends it.",
        "These months were dropped before: 2025-05.",
    ]
    second = ["audit", "hold", "--from", "2026-01-01T01:00+01:00", "--to", "2026-02-01"]
    assert len(pulse(*second, "--reason", "x", **url).stdout.splitlines()) == 1
    assert pulse("audit", "release", "2", "--reason", "settled", **url).stdout == "Hold 2 is released.\n"
    shown = pulse("audit", "holds", **url).stdout
    assert "case [7] of :x:" in shown
    assert "in force" in shown
    assert "settled" in shown
    ranges = await conn.fetch("select starts_at::text, ends_at::text from audit.holds order by hold_id")
    assert [tuple(row) for row in ranges] == [
        ("2025-05-31 00:00:00+00", "infinity"),
        ("2026-01-01 00:00:00+00", "2026-02-01 00:00:00+00"),
    ]
    events = await conn.fetch("select * from audit_log where event_type like 'audit.hold%' order by event_id")
    assert {(row["actor_id"], row["source_service"]) for row in events} == {(f"cli:{getpass.getuser()}", "pulse_audit")}
    assert [row["event_type"].rpartition("_")[2] for row in events] == ["placed", "placed", "released"]

    assert pulse("audit", "hold", "--from", "7d", "--reason", "x", **url).returncode == 0
    assert await conn.fetchval(
        "select now() - starts_at between '7 days' and '8 days' from audit.holds where hold_id = 3"
    )
    assert "no hold 2 in force" in assert_one_line(pulse("audit", "release", "2", "--reason", "x", **url))
    assert "is no time" in assert_one_line(pulse("audit", "hold", "--from", "May", "--reason", "x", **url))
    services = {"PULSE_AUDIT_DATABASE_URL": role_url("pulse_app")}
    assert "permission denied" in assert_one_line(pulse("audit", "release", "1", "--reason", "x", **services))


def test_a_tenant_needs_a_migrated_database(pulse: Run, empty_url: str) -> None:
    """The error names the remedy."""
    for arguments in (["create", "acme"], ["list"]):
        assert "./pulse migrate" in assert_one_line(pulse("tenant", *arguments, PULSE_DATABASE_URL=empty_url))


async def test_trace_prints_the_steps(pulse: Run, conn: asyncpg.Connection, app_url: str) -> None:
    """The trace equals the API's. A tenant sees only its own part."""
    await seed.device(conn, "boiler-1", tenant_id="acme")
    await conn.execute(
        "select ingest.record_readings('acme', array['boiler-1'], array['temperature'], array[now()], array[81.5], $1)",
        TRACE_ID,
    )
    for written in ("0af76519-16cd-43dd-8448-eb211c80319c", TRACE_ID.upper()):
        done = pulse("trace", written, "--tenant", "acme", PULSE_DATABASE_URL=app_url)
        assert done.returncode == 0, done.stderr
        assert "temperature is 81.5" in done.stdout
    done = pulse("trace", TRACE_ID, "--tenant", "acme", "--json", PULSE_DATABASE_URL=app_url)
    shown_trace = Trace.model_validate_json(done.stdout)
    assert [(step.kind, step.what) for step in shown_trace.steps] == [
        ("reading", "temperature is 81.5"),
        ("audit", "1 readings accepted"),
    ]
    assert "has nothing" in assert_one_line(pulse("trace", TRACE_ID, "--tenant", "other", PULSE_DATABASE_URL=app_url))


def test_psql_passes_arguments_and_status_on(pulse: Run, database_url: str) -> None:
    """The command accepts arguments with and without the two dashes."""
    for arguments in (["--", "-XAtc", "select 6 * 7"], ["-XAtc", "select 6 * 7"]):
        done = pulse("psql", *arguments, PULSE_DATABASE_URL=database_url)
        assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr
    assert pulse("psql", "--", "-XAtc", "select 1 / 0", PULSE_DATABASE_URL=database_url).returncode == 1
    # An operator may have no other URL than that of the role.
    done = pulse("psql", "--", "-XAtc", "select 7", PULSE_OPERATOR_DATABASE_URL=database_url)
    assert (done.stdout, done.stderr) == ("7\n", "")


@pytest.mark.slow
def test_migrate_says_what_it_did(pulse: Run, empty_url: str) -> None:
    """The second run reports that there is nothing to do."""
    first = pulse("migrate", PULSE_DATABASE_URL=empty_url)
    assert first.returncode == 0, first.stderr
    assert "SQL layer" in first.stdout
    second = pulse("migrate", PULSE_DATABASE_URL=empty_url)
    assert "nothing to do" in second.stdout


def test_test_runs_every_tool_and_fails_with_the_first_that_failed(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failing tool does not hide the next. Settings of a running stack do not reach the tests."""
    for name in [name for name in os.environ if name.startswith("PULSE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PULSE_DATABASE_URL", NOWHERE)
    monkeypatch.setenv("PULSE_TEST_URL", "kept")
    show = "import os, sys; print(sorted(n for n in os.environ if n.startswith('PULSE_')), sys.argv[1:])"
    monkeypatch.setattr(
        checks, "TOOLS", (("bad", ("-c", "raise SystemExit(3)")), ("worse", ("-c", "raise SystemExit(4)")))
    )
    monkeypatch.setattr(checks, "PYTEST", ("pytest", ("-c", show)))
    assert checks.run_checks(["-k", "name"], slow=True) == 3
    said = capfd.readouterr().out
    assert "['PULSE_TEST_URL'] ['-k', 'name']" in said
    assert said.splitlines()[-1] == "bad: FAILED (3)   worse: FAILED (4)   pytest: ok"
    assert checks.run_checks(["-k", "name"], slow=False) == 3
    said = capfd.readouterr().out
    assert "['PULSE_TEST_URL'] ['-m', 'not slow', '-k', 'name']" in said
    assert said.splitlines()[-1] == "bad: FAILED (3)   worse: FAILED (4)   pytest: ok"


def test_an_unexpected_error_is_one_line_and_a_traceback_on_demand(pulse: Run, home: Home) -> None:
    """The traceback is shown on request."""
    (home.root / "keys").mkdir(parents=True)
    (home.root / "keys" / "es256.pem").write_text("not a key")
    assert "internal error: JWKError" in assert_one_line(pulse("token"))
    assert "Traceback" in pulse("token", PULSE_DEBUG="1").stderr
