"""Making the roles on servers that do not have them."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from migrations.role_names import CALLERS
from migrations.roles import RolesMissing, ensure_roles
from services.local.postgres.server import EmbeddedPostgres
from tests.support.migrator import ROOT, Migrator
from tests.support.migrator_program import pulse_migrate
from tests.support.servers import DEBIAN_15, connect, make_login

ROLES = "select rolname, rolcanlogin, rolconnlimit from pg_roles where rolname like 'pulse\\_%' order by rolname"


@pytest.fixture(params=["embedded", DEBIAN_15])
def server(request: pytest.FixtureRequest, tmp_path: Path, require: Callable[[str], str]) -> Iterator[EmbeddedPostgres]:
    """A new server; the rules of CREATEROLE changed in 16, so both versions are tried."""
    bin_dir = None if request.param == "embedded" else Path(require(request.param)).parent
    with EmbeddedPostgres(tmp_path / "server", durable=False, bin_dir=bin_dir) as started:
        yield started


def test_roles_are_made_once(server: EmbeddedPostgres) -> None:
    """The second run finds nothing to do."""
    with connect(server.url()) as session:
        ensure_roles(session)
        assert session.execute(ROLES.encode()).fetchall() == [
            ("pulse_app", True, -1),
            ("pulse_auditor", True, 20),
            ("pulse_delivery", True, -1),
            ("pulse_dispatcher", True, -1),
            ("pulse_evaluator", True, -1),
            ("pulse_exporter", True, 2),
            ("pulse_operator", True, 20),
            ("pulse_ops", True, -1),
            ("pulse_owner", False, -1),
            ("pulse_ui", True, -1),
        ]
    with connect(server.url()) as session:
        session.execute("set default_transaction_read_only = on")
        assert ensure_roles(session) == []


def test_roles_are_made_by_several_at_once(server: EmbeddedPostgres) -> None:
    """Migrations of several databases of one server make the same roles at once, and all succeed."""
    names = [f"fleet_{number}" for number in range(6)]
    with connect(server.url()) as session:
        for name in names:
            session.execute(f"create database {name}".encode())

    def make(name: str) -> None:
        with connect(server.url(database=name)) as session:
            ensure_roles(session)

    with ThreadPoolExecutor(len(names)) as threads:
        list(threads.map(make, names))
    for name in names:
        with connect(server.url(database=name)) as session:
            session.execute("set default_transaction_read_only = on")
            ensure_roles(session)


def test_a_login_that_makes_roles_migrates_without_being_superuser(server: EmbeddedPostgres) -> None:
    """A managed server's administrator is no superuser."""
    url = make_login(server, "createrole")
    with connect(server.url()) as session:
        session.execute("alter database pulse owner to deployer")
    Migrator(url).upgrade()
    with connect(url) as session:
        owners = session.execute(
            "select distinct relowner::regrole::text from pg_class where relnamespace = 'public'::regnamespace"
        )
        assert owners.fetchall() == [("pulse_owner",)]
    assert Migrator(url).upgrade().startswith("nothing to do")
    Migrator(url).downgrade("base")


def test_a_login_that_made_the_owner_itself_may_act_as_it(server: EmbeddedPostgres) -> None:
    """Since 16 the maker of a role may grant it, but must grant it to itself before acting as it."""
    url = make_login(server, "createrole")
    with connect(server.url()) as session:
        session.execute("alter database pulse owner to deployer")
    with connect(url) as session:
        session.execute("create role pulse_owner nologin")
    Migrator(url).upgrade()


def test_a_login_without_rights_gets_the_statements_to_ask_for(server: EmbeddedPostgres) -> None:
    """After an administrator runs the statements of the message, nothing is missing."""
    url = make_login(server)
    with connect(url) as session, pytest.raises(RolesMissing, match="Ask an administrator") as caught:
        ensure_roles(session)
    # ./pulse migrate prints the whole message, not only the last statement.
    assert " ".join(str(caught.value).split()) in pulse_migrate(url).stderr
    statements = str(caught.value).partition("\n")[2]
    with connect(server.url()) as session:
        session.execute(statements.encode())
    with connect(url) as session:
        ensure_roles(session)
    Migrator(url).upgrade()


def test_only_roles_of_pulse_enter_the_database(server: EmbeddedPostgres) -> None:
    """PUBLIC may connect to a new database, but not to this one."""
    with connect(server.url()) as session:
        ensure_roles(session)
        rows = session.execute(
            "select distinct coalesce(r.rolname::text, 'PUBLIC') from pg_database d"
            " cross join aclexplode(d.datacl) a left join pg_roles r on r.oid = a.grantee where d.datname = 'pulse'"
        ).fetchall()
    roles = {f"pulse_{suffix}" for suffix in ("owner", *CALLERS)}
    assert {row[0] for row in rows} == {"postgres", *roles}


def test_the_ops_worker_loses_the_rights_of_the_services(server: EmbeddedPostgres) -> None:
    """It was once a member of pulse_app, as its comment stated."""
    look = b"select pg_has_role('pulse_ops', 'pulse_app', 'member'), pg_has_role('pulse_app', 'pulse_ops', 'member')"
    former = b"""
      grant pulse_app to pulse_ops;
      comment on role pulse_ops is
        'The ops worker: may what pulse_app may, seal the audit trail and let its months go.'"""
    with connect(server.url()) as session:
        ensure_roles(session)
        session.execute(former)
        assert ensure_roles(session) == []
        assert session.execute(look).fetchone() == (False, False)


def test_passwords_come_from_the_environment_and_go_hashed(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server never sees the password itself, so its log cannot hold it."""
    monkeypatch.setenv("PULSE_APP_PASSWORD", "it's a secret")
    with connect(server.url()) as session:
        ensure_roles(session)
        row = session.execute("select rolpassword from pg_authid where rolname = 'pulse_app'").fetchone()
        other = session.execute("select rolpassword from pg_authid where rolname = 'pulse_auditor'").fetchone()
    assert row is not None
    assert str(row[0]).startswith("SCRAM-SHA-256$4096:")
    assert other == (None,)


def test_the_command_prints_what_is_missing_or_makes_it(server: EmbeddedPostgres) -> None:
    """An administrator reads `python -m migrations.roles --print` before running anything."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "migrations.roles", *arguments, "--url", server.url()]
        return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)

    printed = run("--print").stdout
    assert "create role pulse_exporter login connection limit 2;" in printed
    with connect(server.url()) as session:
        assert session.execute(ROLES.encode()).fetchall() == []
        session.execute(printed.encode())
    assert run("--print").stdout == ""
    assert run().stdout == ""


def test_the_command_reports_a_mistake_in_one_line() -> None:
    command = [sys.executable, "-m", "migrations.roles", "--url", "postgresql://nobody@localhost:1/none"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("roles: connection failed")
    assert len(done.stderr.splitlines()) == 1
