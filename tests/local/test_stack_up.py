"""`pulse up`: ready, self-healing, clean at the end, and back with its data."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import httpx
import psycopg
import pytest

from services.cli.home import CHECKOUT
from services.local.process import pids
from services.local.stack.roster import ROLES, SERVICES
from tests.support.running_stack import RunningStack, free_port_base
from tests.support.wait import until_now

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def stack() -> Iterator[RunningStack]:
    """A stack that is not started yet. Its remaining processes are stopped at the end."""
    parent = Path(tempfile.mkdtemp(prefix="pulse-stack-"))
    parent.chmod(0o755)
    made = RunningStack(parent / "home", free_port_base(), ("--no-demo",))
    yield made
    made.kill()
    shutil.rmtree(parent)


def has_restarted(stack: RunningStack, name: str) -> bool:
    return bool(stack.processes()[name]["restarts"] == 1)


@pytest.mark.slow
def test_the_stack_heals_and_comes_back_with_its_data(stack: RunningStack) -> None:
    """Each process is killed in turn, then the supervisor, followed by a clean stop."""
    stack.arguments = ("--no-demo", "--ui-processes", "2")
    stack.start()
    before = stack.until_ready()
    assert set(before) == {"postgres", *SERVICES, "ui_iot-2"}
    assert before["ui_iot-2"]["port"] == before["ui_iot"]["port"]
    for metrics_port in (stack.port_base + 11, stack.port_base + 12):
        assert httpx.get(f"http://127.0.0.1:{metrics_port}/readyz").status_code == 200
    assert {name: before[name]["port"] for name in SERVICES} == {
        name: stack.port_base + number for number, name in enumerate(SERVICES, start=1)
    }
    made = stack.run(
        "psql", "--as", "owner", "--", "-XAtc", "create table kept as select 7 as value; select current_user"
    )
    assert made.stdout.split() == ["SELECT", "1", "pulse_owner"], made.stderr
    for role in ("operator", "auditor", "exporter", "app", "ops"):
        assert stack.run("psql", "--as", role, "--", "-XAtc", "select current_user").stdout == f"pulse_{role}\n"
    assert stack.run("psql", "--", "-XAtc", "select session_user").stdout == "pulse_operator\n"

    second = stack.run("up", "--port-base", str(stack.port_base))
    assert second.returncode == 2
    assert stack.supervisor is not None
    assert f"already running, process {stack.supervisor.pid}" in second.stderr

    for name in before:
        os.kill(before[name]["pid"], signal.SIGKILL)
        until_now(partial(has_restarted, stack, name), seconds=30)
        after = stack.until_ready()
        assert after[name]["pid"] != before[name]["pid"]
    assert stack.run("status").returncode == 0

    commands = [line.split() for line in stack.output.splitlines() if line.startswith("   ./pulse t")]
    assert [stack.run(*words[1:]).returncode for words in commands] == [0, 0], stack.output
    assert "acme" in stack.run("tenant", "list").stdout

    left = stack.pids()
    stack.supervisor.kill()
    stack.supervisor.wait()
    until_now(lambda: not any(pids.is_running(pid) for pid in left), seconds=30)
    assert stack.run("status").returncode == 1

    stack.start()
    stack.until_ready()
    assert stack.run("psql", "--as", "owner", "--", "-XAtc", "select value from kept").stdout == "7\n"
    running = stack.pids()
    assert stack.stop(signal.SIGINT) == 0
    assert not any(pids.is_running(pid) for pid in running)
    assert not (stack.home / "stack.json").exists()


def test_a_stop_in_the_middle_of_the_start_is_clean(stack: RunningStack) -> None:
    """Ctrl-C as soon as the first process is there."""
    stack.start()
    until_now(stack.pids, seconds=30)
    running = stack.pids()
    assert stack.stop(signal.SIGINT) == 0
    assert not any(pids.is_running(pid) for pid in running)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"PULSE_POOL_MAX_SIZE": "none"}, "PULSE_POOL_MAX_SIZE"),
        pytest.param(
            {"PULSE_PG_USER": "no-such-user"},
            "postgres does not become ready: PULSE_PG_USER names no-such-user, which is no user of this machine",
            marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root changes to another user"),
        ),
    ],
)
def test_a_process_that_cannot_start_ends_the_start_with_its_last_words(
    stack: RunningStack, settings: dict[str, str], words: str
) -> None:
    """No process is left running."""
    stack.settings = settings
    stack.start()
    assert stack.supervisor is not None
    assert stack.supervisor.wait(60) == 1
    last = stack.output.splitlines()[-1]
    assert last.startswith("pulse: ")
    assert words in last
    assert "Traceback" not in stack.output


@pytest.mark.slow
def test_a_database_of_the_callers_is_migrated_and_gets_no_demo(stack: RunningStack, empty_url: str) -> None:
    """Only the six services run, and the database stays untouched at the end."""
    stack.settings = {"PULSE_DATABASE_URL": empty_url, "PULSE_ALLOW_UNSAFE_DATABASE": "true"}
    stack.arguments = ()
    stack.start()
    assert set(stack.until_ready()) == set(SERVICES)
    counted = stack.run("psql", "--", "-XAtc", "select count(*) from devices")
    assert (counted.returncode, counted.stdout) == (0, "0\n"), counted.stderr
    assert "Token" not in stack.output
    assert stack.stop() == 0
    assert not (stack.home / "postgres").exists()
    with psycopg.connect(empty_url) as conn:
        assert conn.execute("select core.revision() is not null").fetchone() == (True,)


@pytest.mark.slow
def test_services_do_not_use_the_login_that_migrates(
    stack: RunningStack, database_url: str, role_url: Callable[[str], str]
) -> None:
    """Both URLs are set, and each process logs in as its role."""
    stack.settings = {
        "PULSE_MIGRATION_URL": database_url,
        "PULSE_DATABASE_URL": role_url("pulse_app"),
        **{f"PULSE_{role.removeprefix('pulse_').upper()}_DATABASE_URL": role_url(role) for role in ROLES.values()},
        "PULSE_ALLOW_UNSAFE_DATABASE": "true",
    }
    stack.start()
    stack.until_ready()
    with psycopg.connect(database_url) as conn:
        query = """
select distinct usename::text from pg_stat_activity
where datname = current_database() and application_name like 'pulse-%'
"""
        roles = {row[0] for row in conn.execute(query)}
    assert roles == set(ROLES.values())
    assert stack.stop() == 0


@pytest.mark.slow
def test_the_demo_shows_the_first_journey_and_its_hints_work_as_printed(
    stack: RunningStack, require: Callable[[str], str]
) -> None:
    """The printed commands are pasted into a shell."""
    require("curl")
    stack.arguments = ("--devices", "5", "--rate", "10")
    stack.start()
    stack.until_ready()
    until_now(lambda: "Ctrl-C stops all processes" in stack.output, seconds=40)
    assert "The first alert's journey, trace " in stack.output, stack.output
    assert "from reading to answer" in stack.output
    token = next(line.split()[-1] for line in stack.output.splitlines() if line.startswith("Token"))
    api = f"http://127.0.0.1:{stack.port_base + 1}"
    alerts = httpx.get(f"{api}/api/v1/alerts", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
    assert alerts.status_code == 200, alerts.text

    commands = [line.strip() for line in stack.output.splitlines() if line.startswith("   ")]
    done = [
        subprocess.run(
            ["sh", "-c", line], check=False, cwd=CHECKOUT, env=stack.environment, capture_output=True, text=True
        )
        for line in commands
        if line.startswith(("curl", "./pulse psql"))
    ]
    said = "\n".join(one.stdout for one in done)
    assert all(one.returncode == 0 for one in done), [one.stderr for one in done]
    assert said.count("auth.login_failure") >= 2
    for name in ("pulse_http_request_duration_seconds_bucket", "pulse_processing_duration_seconds_bucket"):
        assert name in said
    trace = next(line.split()[-1] for line in commands if line.startswith("./pulse trace"))
    story = until_now(
        lambda: printed if "delivered" in (printed := stack.run("trace", trace).stdout) else "",
        seconds=20,
    )
    assert all(service in story for service in ("ui_iot", "evaluator_iot", "dispatcher", "delivery_worker"))
    logs = {path.stem for path in (stack.home / "log").glob("*.log") if trace in path.read_text()}
    assert {"ui_iot", "evaluator_iot", "dispatcher", "delivery_worker", "sink"} <= logs
    assert stack.stop() == 0
