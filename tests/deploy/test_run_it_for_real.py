"""README's section "Run it for real" in a shell: a fresh copy, Debian's Postgres 15, no superuser."""

import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import psycopg
import pytest

from services.local.postgres.account import find_account
from tests.support.migrator import ROOT
from tests.support.processes import free_port
from tests.support.running_stack import free_port_base
from tests.support.servers import DEBIAN_15
from tests.support.wait import until_now

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture
def server_port(require: Callable[[str], str]) -> Iterator[int]:
    """A durable Postgres 15 on TCP with passwords. `admin` may create roles and owns the database."""
    account, programs, port = find_account(None), Path(require(DEBIAN_15)).parent, free_port()
    place = Path(tempfile.mkdtemp(prefix="pulse-real-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    account.own(place, mode=0o700)
    data, log = str(place / "data"), place / "log"
    initdb = [str(programs / "initdb"), "-D", data, "-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
    pg_hba = "local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"
    subprocess.run([*initdb, "-A", "trust"], check=True, cwd="/", capture_output=True, **account.spawn_options())
    (place / "data" / "pg_hba.conf").write_text(pg_hba)
    settings = ["listen_addresses=127.0.0.1", f"unix_socket_directories={place}", "max_connections=100"]
    command = [
        str(programs / "postgres"),
        "-D",
        data,
        "-p",
        str(port),
        *(part for one in settings for part in ("-c", one)),
    ]
    with log.open("wb") as output:
        server = subprocess.Popen(
            command, cwd="/", stdout=output, stderr=output, start_new_session=True, **account.spawn_options()
        )

    def administrator() -> psycopg.Connection[tuple[object, ...]] | None:
        with suppress(psycopg.OperationalError):
            return psycopg.connect(f"host={place} port={port} user=postgres dbname=postgres", autocommit=True)
        return None

    try:
        session = until_now(administrator, seconds=30)
        assert session is not None
        with session:
            session.execute("create role admin login createrole password 'admin-secret'")
            session.execute("create database pulse owner admin")
        yield port
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The checkout's files without the results of a first run."""
    made = tmp_path / "pulse"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    for name in listed.stdout.decode().split("\0"):
        source = ROOT / name
        if name and source.is_file() and not name.startswith(".venv"):
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, made / name)
    return made


def section() -> str:
    """Return the shell block of the section."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Run it for real")[2]
    found = re.search(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found is not None
    return found[1]


def python_that_lends_its_packages(directory: Path) -> Path:
    """Return a python3 that links this .venv instead of creating one, so that no network is needed."""
    lender = directory / "python3"
    prefix = Path(sys.prefix)
    lender.write_text(
        '#!/bin/sh\ncase "$2" in\n'
        f'*/services/local/stack/venv.py) ln -s {prefix} "$3/.venv" ;;\n*) exec {sys.executable} "$@" ;;\nesac\n'
    )
    lender.chmod(0o755)
    return lender


def test_the_section_works_as_written(copy: Path, server_port: int, tmp_path: Path) -> None:
    """Only hosts and ports differ. Every process becomes ready, and a reading is evaluated."""
    base = free_port_base()
    script = section().replace("db.example:5432", f"127.0.0.1:{server_port}").replace("login.example", "127.0.0.1:1")
    script = re.sub(r"PULSE_PORT=808([1-6])\b", lambda match: f"PULSE_PORT={base + int(match[1])}", script)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PULSE_", "PG", "PYTHON"))}
    environment["PULSE_PYTHON"] = str(python_that_lends_its_packages(tmp_path))
    output = tmp_path / "output"
    with output.open("wb") as written:
        # The new session's process group is stopped at the end of the test.
        shell = subprocess.Popen(
            ["bash", "-euc", f"{script}\nwait"],
            cwd=copy,
            env=environment,
            stdout=written,
            stderr=written,
            start_new_session=True,
        )
    try:
        for offset in range(1, 7):
            until_now(lambda: is_ready(base + offset, shell, output), seconds=90)  # noqa: B023  called at once
        said = output.read_text()
        assert "upgraded base -> 0001" in said
        assert "Sign in with a token of your identity provider that has the claims tenant_id: acme" in said
        send_reading(base, server_port)
        metrics = httpx.get(f"http://127.0.0.1:{base + 6}/metrics", trust_env=False).text
        assert "pulse_exporter_up 1.0" in metrics
        assert 'pulse_devices{status="online"} 1.0' in metrics
    finally:
        os.killpg(shell.pid, signal.SIGTERM)
        shell.wait(30)


def is_ready(port: int, shell: "subprocess.Popen[bytes]", output: Path) -> bool:
    """Return whether a process is ready. Fail with the output if the script has ended."""
    if shell.poll() is not None:
        raise AssertionError(output.read_text())
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def send_reading(base: int, server_port: int) -> None:
    """Add a device as the API's role, send a reading with its token, and wait for the evaluation."""
    token = f"pdt_acme_{secrets.token_urlsafe(32)}"
    url = f"postgresql://pulse_ui:ui-secret@127.0.0.1:{server_port}/pulse"
    with psycopg.connect(url) as session:
        session.execute("select core.act('acme', 'user', 'tests', '', '', '', 'tests')")
        digest = hashlib.sha256(token.encode()).hexdigest()
        body = f'{{"device_id": "boiler-1", "token_hash": "{digest}"}}'
        session.execute("select ingest.create_device(%s::jsonb)", [body])
    answer = httpx.post(
        f"http://127.0.0.1:{base + 1}/ingest/v1/readings",
        headers={"Authorization": f"Bearer {token}"},
        json={"device_id": "boiler-1", "metric": "temperature", "value": 120},
        trust_env=False,
    )
    assert answer.status_code == 202, answer.text

    def is_evaluated() -> bool:
        with psycopg.connect(url) as session:
            row = session.execute("select depth from api.queues where queue_name = 'inbox'").fetchone()
        return row == (0,)

    until_now(is_evaluated, seconds=30)
