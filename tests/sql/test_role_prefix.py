"""Several installations on one server: their roles, passwords and grants are independent."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import asyncpg
import psycopg
import pytest
from alembic import command
from alembic.util import CommandError

from migrations.role_names import CALLERS, RoleNames
from migrations.role_plan import ForeignRole
from migrations.roles import ensure_roles, plan
from services.local.postgres.binaries import carried_binaries
from services.local.postgres.server import EmbeddedPostgres
from tests.support.migrator import ROOT, Migrator, dump_schema
from tests.support.scrape import exporting
from tests.support.servers import DEBIAN_15, admit, connect

SUFFIXES = ("owner", *CALLERS)
ROLES = """
select rolname, rolpassword, rolcanlogin, rolconnlimit, shobj_description(a.oid, 'pg_authid'),
       array(select roleid::regrole::text from pg_auth_members m where m.member = a.oid order by 1),
       array(select unnest(setconfig) from pg_db_role_setting s where s.setrole = a.oid order by 1)
  from pg_authid a where rolname like %s order by 1
"""
GRANTS = "select datname, datacl::text from pg_database where datname = %s"


@pytest.fixture(params=["embedded", DEBIAN_15])
def server(request: pytest.FixtureRequest, tmp_path: Path, require: Callable[[str], str]) -> Iterator[EmbeddedPostgres]:
    """A new server with the databases staging and production."""
    bin_dir = None if request.param == "embedded" else Path(require(request.param)).parent
    with EmbeddedPostgres(tmp_path / "server", durable=False, bin_dir=bin_dir) as started:
        with connect(started.url()) as session:
            session.execute("create database staging")
            session.execute("create database production")
        yield started


@pytest.fixture
def embedded(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    """A new server of the newest version, for behavior that is the same in all versions."""
    with EmbeddedPostgres(tmp_path / "server", durable=False) as started:
        with connect(started.url()) as session:
            session.execute("create database staging")
        yield started


async def _enter_as_production(server: EmbeddedPostgres, logins: list[str]) -> None:
    for login in logins:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match='permission denied for database "staging"'):
            await asyncpg.connect(server.url(login, database="staging"))
    app = await asyncpg.connect(server.url("production_app", database="production"))
    assert await app.fetchval("select core.revision()") is not None
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("select audit.lease_seal('evil', 10)")
    await app.close()
    async with exporting(server.url("production_exporter", database="production")) as scraper:
        assert set((await scraper.scrape()).views().values()) == {True}


def test_two_installations_on_one_server_are_independent(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migrating one changes nothing in the other, and no role of one can connect to the other's database."""

    def migrate(name: str, password: str) -> str:
        monkeypatch.setenv("PULSE_ROLE_PREFIX", f"{name}_")
        monkeypatch.setenv("PULSE_APP_PASSWORD", password)
        return Migrator(server.url(database=name)).upgrade()

    def look(name: str) -> list[object]:
        with connect(server.url(database=name)) as session:
            roles = session.execute(ROLES.encode(), [f"{name}\\_%"]).fetchall()
            grants = session.execute(GRANTS.encode(), [name]).fetchall()
        return [roles, grants, dump_schema(server.url(database=name))]

    migrate("staging", "first")
    before = look("staging")
    migrate("production", "second")
    assert "nothing to do" in migrate("production", "third")
    assert look("staging") == before
    assert [row[0] for row in before[0]] == sorted(f"staging_{suffix}" for suffix in SUFFIXES)  # type: ignore[attr-defined]
    with connect(server.url()) as session:
        assert session.execute("select count(*) from pg_roles where rolname like 'pulse\\_%'").fetchone() == (0,)

    logins = [f"production_{suffix}" for suffix in SUFFIXES if suffix != "owner"]
    admit(server, *logins)
    asyncio.run(_enter_as_production(server, logins))

    monkeypatch.setenv("PULSE_ROLE_PREFIX", "production_")
    with pytest.raises(CommandError, match="belong to staging_owner, not to production_owner: set PULSE_ROLE_PREFIX"):
        Migrator(server.url(database="staging")).upgrade()
    assert look("staging") == before


def test_passwords_of_existing_roles_change_on_request_only(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Migrating a second database with another password in the environment keeps the first one's login unchanged."""

    def verifiers() -> dict[object, object]:
        with connect(server.url()) as session:
            rows = session.execute(
                "select rolname, rolpassword from pg_authid where rolname like 'pulse\\_%'"
            ).fetchall()
        return {row[0]: row[1] for row in rows}

    monkeypatch.setenv("PULSE_APP_PASSWORD", "first")
    with connect(server.url(database="production")) as session:
        assert ensure_roles(session) == []
    made = verifiers()
    assert str(made["pulse_app"]).startswith("SCRAM-SHA-256$4096:")
    monkeypatch.setenv("PULSE_APP_PASSWORD", "second")
    monkeypatch.setenv("PULSE_OPERATOR_PASSWORD", "third")
    with connect(server.url(database="staging")) as session:
        assert ensure_roles(session) == [
            "roles that exist keep their passwords (pulse_app, pulse_operator); --set-passwords changes them"
        ]
    assert verifiers() == made
    with connect(server.url(database="staging")) as session:
        assert ensure_roles(session, set_passwords=True) == []
    changed = verifiers()
    assert {name for name in made if made[name] != changed[name]} == {"pulse_app", "pulse_operator"}


FOREIGN = [
    ("create role pulse_app login superuser", "is a superuser"),
    ("create role pulse_app login createrole replication", "creates roles, replicates"),
    ("create role pulse_app nologin", "may not log in"),
    ("create role pulse_owner login", "may log in"),
    ("create role pulse_app login; alter role pulse_app set work_mem = '1GB'", "has settings"),
    ("create role shop; create role pulse_app login in role shop", "is a member of shop"),
    ("create role pulse_app login; create role shop in role pulse_app", "has the member shop"),
    ("create role pulse_app login; create database shop owner pulse_app", "owns or uses objects of others"),
    ("create role pulse_app login; create table shop (); alter table shop owner to pulse_app", "owns or uses"),
    ("create role pulse_app login; create table shop (); grant select on shop to pulse_app", "owns or uses"),
]


def test_a_role_of_another_application_is_not_taken_over(server: EmbeddedPostgres) -> None:
    """A role that only shares the name is not changed, and the message shows the remedy."""
    for making, trait in FOREIGN:
        with connect(server.url()) as session:
            for statement in making.split("; "):
                session.execute(statement.encode())
            before = session.execute(ROLES.encode(), ["pulse\\_%"]).fetchall()
        with pytest.raises(CommandError, match=rf"a role pulse_\w+ that Pulse did not make: it .*{trait}") as refused:
            Migrator(server.url(database="staging")).upgrade()
        assert len(str(refused.value).splitlines()) == 1
        with connect(server.url()) as session:
            assert session.execute(ROLES.encode(), ["pulse\\_%"]).fetchall() == before
            session.execute("drop table if exists shop")
            session.execute("drop database if exists shop")
            session.execute("drop role if exists pulse_app, pulse_owner, shop")
    with connect(server.url()) as session:
        session.execute("create role pulse_app nologin")
        session.execute("alter role pulse_app login createdb")
        with pytest.raises(ForeignRole) as claimed:
            ensure_roles(session)
        session.execute(str(claimed.value).partition("run: ")[2].encode())
        ensure_roles(session)


def test_a_plain_role_made_by_an_administrator_is_adopted(embedded: EmbeddedPostgres) -> None:
    """Consoles of managed servers make roles without comments and settings."""
    with connect(embedded.url()) as session:
        session.execute("create role pulse_exporter login connection limit 7")
        ensure_roles(session)
        query = "select rolconnlimit, 'statement_timeout=10s' = any (rolconfig) from pg_roles where rolname = %s"
        assert session.execute(query, ["pulse_exporter"]).fetchone() == (7, True)


def test_roles_restored_without_comments_are_adopted(embedded: EmbeddedPostgres) -> None:
    """A dump keeps ownership; comments of roles may get lost on the way to another server."""
    Migrator(embedded.url(database="staging")).upgrade()
    with connect(embedded.url()) as session:
        for suffix in SUFFIXES:
            session.execute(f"comment on role pulse_{suffix} is null".encode())
    assert Migrator(embedded.url(database="staging")).upgrade().startswith("nothing to do")
    with connect(embedded.url()) as session:
        rows = session.execute(ROLES.encode(), ["pulse\\_%"]).fetchall()
    assert len(rows) >= len(SUFFIXES)
    assert all(row[4] for row in rows)


def test_a_dump_is_restored_under_another_prefix(embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is restored without its grants; a migration builds them anew for the roles of the new prefix."""
    with connect(embedded.url()) as session:
        session.execute("create database production")
        session.execute("create database fresh")
    Migrator(embedded.url(database="production")).upgrade()
    monkeypatch.setenv("PULSE_ROLE_PREFIX", "staging_")
    Migrator(embedded.url(database="fresh")).upgrade()
    staging = embedded.url(database="staging")
    with connect(staging) as session:
        ensure_roles(session)
    programs = carried_binaries()
    dump = subprocess.run(
        [str(programs / "pg_dump"), "--format=custom", f"--dbname={embedded.url(database='production')}"],
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(
        [
            *(str(programs / "pg_restore"), "--exit-on-error", "--no-owner", "--no-acl", "--role=staging_owner"),
            f"--dbname={staging}",
        ],
        check=True,
        input=dump,
    )
    migrator = Migrator(staging)
    migrator.upgrade()
    assert migrator.upgrade().startswith("nothing to do")
    migrator.run(command.check)
    assert dump_schema(staging) == dump_schema(embedded.url(database="fresh"))
    with connect(staging) as session:
        left = session.execute(
            r"""select refobjid::regrole from pg_shdepend join pg_database d on d.oid = dbid
                 where datname = current_database() and refclassid = 'pg_authid'::regclass
                   and refobjid::regrole::text like 'pulse\_%'"""
        ).fetchall()
    assert left == []


def test_the_exporters_connection_limit_is_a_setting(
    embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two by default; a given number is applied to an existing role; without one the limit is kept."""
    look = b"select rolconnlimit from pg_roles where rolname = 'pulse_exporter'"
    with connect(embedded.url()) as session:
        for given, limit in (("", 2), ("5", 5), ("", 5), ("3", 3)):
            monkeypatch.setenv("PULSE_EXPORTER_CONNECTION_LIMIT", given)
            ensure_roles(session)
            assert session.execute(look).fetchone() == (limit,)
    for bad in ("0", "-1", "two", "1_0", "²", "99999999999"):
        monkeypatch.setenv("PULSE_EXPORTER_CONNECTION_LIMIT", bad)
        with pytest.raises(
            CommandError, match=r"^PULSE_EXPORTER_CONNECTION_LIMIT takes a number of connections from 1"
        ):
            Migrator(embedded.url(database="staging")).upgrade()


def test_lost_settings_of_roles_come_back(embedded: EmbeddedPostgres) -> None:
    """Above all read-only transactions, timeouts and the limit of the exporter; a chosen value stays."""
    migrator = Migrator(embedded.url(database="staging"))
    migrator.upgrade()
    look = """
select rolname, rolconnlimit, array(select unnest(rolconfig) order by 1)::text
  from pg_roles where rolname ~ '^pulse_' order by rolname
"""
    with connect(embedded.url()) as session:
        before = session.execute(look).fetchall()
        for suffix in SUFFIXES:
            session.execute(f"alter role pulse_{suffix} reset all".encode())
        session.execute("alter role pulse_exporter connection limit -1")
        assert migrator.upgrade().startswith("nothing to do")
        assert session.execute(look).fetchall() == before
        [exporter] = [row for row in before if row[0] == "pulse_exporter"]
        assert (exporter[1], "default_transaction_read_only=on" in str(exporter[2])) == (2, True)
        session.execute("alter role pulse_exporter set statement_timeout = '5s'")
        session.execute("alter role pulse_exporter connection limit 9")
        migrator.upgrade()
        [exporter] = [row for row in session.execute(look) if row[0] == "pulse_exporter"]
        assert (exporter[1], "statement_timeout=5s" in str(exporter[2])) == (9, True)


def test_a_login_that_may_not_alter_roles_reports_lost_settings(embedded: EmbeddedPostgres) -> None:
    """The migration continues, and the line holds the statements."""
    Migrator(embedded.url(database="staging")).upgrade()
    with connect(embedded.url()) as session:
        session.execute("create role deployer login")
        session.execute("grant pulse_owner to deployer; alter role pulse_operator reset lock_timeout")
        session.execute("grant connect on database staging to deployer")
    said = Migrator(embedded.url("deployer", database="staging")).upgrade()
    statement = "alter role pulse_operator set lock_timeout = '10s';"
    assert said.splitlines()[1:] == [
        f"pulse_operator lacks settings that Pulse made; an administrator may run: {statement}"
    ]


def test_attributes_that_pulse_does_not_need_are_named_until_they_go(embedded: EmbeddedPostgres) -> None:
    """One line a role, with the statement that removes them; the migration itself removes none."""
    migrator = Migrator(embedded.url(database="staging"))
    migrator.upgrade()
    with connect(embedded.url()) as session:
        session.execute("alter role pulse_app superuser createdb createrole replication bypassrls")
        session.execute("alter role pulse_owner login")
        special = ("superuser", "createrole", "createdb", "replication", "bypassrls")
        remedy = "which Pulse does not need; an administrator may run: alter role"
        named = [
            f"WARNING: pulse_owner has login, {remedy} pulse_owner nologin;",
            f"WARNING: pulse_app has {', '.join(special)}, {remedy} pulse_app no{' no'.join(special)};",
        ]
        for _ in range(2):
            said = migrator.upgrade().splitlines()
            assert (said[0].partition(":")[0], said[1:]) == ("nothing to do", named)
        for line in named:
            session.execute(line.partition("run: ")[2].encode())
    assert len(migrator.upgrade().splitlines()) == 1


def test_no_parameter_of_our_roles_reaches_the_servers_log(server: EmbeddedPostgres) -> None:
    """Parameters hold the secrets of channels."""
    with connect(server.url()) as session:
        ensure_roles(session)
    admit(server, "pulse_app")
    for role in ("pulse_app",):
        with connect(server.url(role, database="pulse")) as session:
            for setting in ("log_parameter_max_length", "log_parameter_max_length_on_error"):
                row = session.execute("select setting from pg_settings where name = %s", [setting]).fetchone()
                assert row == ("0",)


@pytest.mark.parametrize(
    "prefix", ["Pulse_", "pulse-", "1pulse_", "pg_pulse_", 'pulse"', "pülse_", "p" * 54, "a b", "x;"]
)
def test_a_prefix_that_is_none_is_refused_in_one_line(
    prefix: str, empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused before any connection is opened."""
    monkeypatch.setenv("PULSE_ROLE_PREFIX", prefix)
    with pytest.raises(CommandError, match=r"^PULSE_ROLE_PREFIX takes up to 53 lower-case letters") as refused:
        Migrator(empty_url).upgrade()
    assert len(str(refused.value).splitlines()) == 1


def test_the_longest_prefix_works(embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """With it the longest name has 63 characters, so the server truncates none."""
    monkeypatch.setenv("PULSE_ROLE_PREFIX", "p" * 53)
    Migrator(embedded.url(database="staging")).upgrade()
    assert Migrator(embedded.url(database="staging")).upgrade().startswith("nothing to do")


def test_renaming_touches_roles_only() -> None:
    """Names of NOTIFY channels and longer names stay as they are, in all of sql/."""
    names = RoleNames("acme_")
    assert names.rename("grant x to pulse_app, pulse_ops; perform pg_notify('pulse_ops', '')") == (
        "grant x to acme_app, acme_ops; perform pg_notify('pulse_ops', '')"
    )
    assert names.rename("pulse_exporter_up pulse_apps my_pulse_app") == "pulse_exporter_up pulse_apps my_pulse_app"
    texts = {path: path.read_text(encoding="utf-8") for path in (ROOT / "sql").rglob("*.sql")}
    assert len(texts) > 300
    assert [path for path, text in texts.items() if RoleNames().rename(text) != text] == []
    assert RoleNames("pulse_").rename("pulse_owner") == "pulse_owner"


def test_the_printed_plan_holds_no_password(embedded: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """This includes the verifier."""
    monkeypatch.setenv("PULSE_APP_PASSWORD", "only-here")
    with psycopg.connect(embedded.url(), autocommit=True) as session:
        text = "".join(statement.as_string(session) for statement in plan(session))
    assert "password" not in text
