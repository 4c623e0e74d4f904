"""A dump restores a database of Pulse unchanged, on the same version of Postgres and on another one."""

import os
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest
from alembic import command
from alembic.util import CommandError

from migrations.layer_definitions import record_definitions
from migrations.role_names import RoleNames
from migrations.roles import ensure_roles
from services.local.postgres.server import EmbeddedPostgres
from tests.support.migrator import Migrator
from tests.support.moved_database import binaries
from tests.support.postgres_server import Server
from tests.support.receiver import Receiver
from tests.support.restored_database import Url, contents, fill, pools, require_guards, serve, superuser
from tests.support.sealed_log import SealedLog, make_sealer
from tests.support.servers import DEBIAN_15, make_login

# pulse_owner cannot grant on the schema public, which it does not own; migrations.roles has already done so.
HARMLESS = 'WARNING:  no privileges were granted for "public"'
OWNER = RoleNames().owner
WIPE = """
drop owned by pulse_owner cascade;
drop schema "My Own" cascade;
grant usage, create on schema public to pulse_owner;
"""
OWNERLESS = ["--no-owner", f"--role={OWNER}"]


@dataclass(frozen=True, slots=True)
class Place:
    """A database and the programs of its server's version."""

    url: Url
    bin_dir: Path

    def run(self, program: str, *arguments: str, **options: str) -> str:
        """Run a program on the database and return its output. Fail at an error, and at a warning except one."""
        url = options.pop("url", self.url(None))
        done = subprocess.run(
            [str(self.bin_dir / program), "--no-password", *arguments, f"--dbname={url}"],
            check=False,
            cwd="/",
            env={"LC_ALL": "C.UTF-8", **options},
            capture_output=True,
            text=True,
        )
        errors = [line for line in done.stderr.splitlines() if not line.endswith(HARMLESS)]
        assert (done.returncode, errors) == (0, []), done.stderr
        return done.stdout

    def list_dump(self, dump: Path) -> list[str]:
        """Return the contents of a dump in custom format."""
        listing = [str(self.bin_dir / "pg_restore"), "--list", str(dump)]
        return subprocess.run(listing, check=True, capture_output=True, text=True).stdout.splitlines()

    def list_objects(self, dump: Path) -> set[str]:
        """Return the contents without the numbers that the server assigned."""
        return {re.sub(r"^\d+; \d+ \d+ ", "", line) for line in self.list_dump(dump) if not line.startswith(";")}


def make_place(server: Server, name: str) -> Place:
    """Return an empty database with the roles of Pulse."""
    with psycopg.connect(server.url(database="postgres"), autocommit=True) as session:
        session.execute(f"drop database if exists {name} with (force)".encode())
        session.execute(f"create database {name}".encode())
        major = session.info.server_version // 10000
    place = Place(lambda role: server.url(database=name, user=role), binaries(major))
    with psycopg.connect(place.url(None), autocommit=True) as session:
        ensure_roles(session)
    return place


def definitions(place: Place) -> dict[str, str]:
    """Return the definitions of the layer in the catalog."""
    with psycopg.connect(place.url(None)) as session:
        return dict(record_definitions(session)["definitions"])


async def verify(place: Place, home: Path) -> SealedLog:
    """Verify the sealed log against the key and the checkpoints in home; all rows must be as sealed."""
    async with superuser(place.url) as conn, pools(place.url, "pulse_ops", "pulse_auditor") as [ops, auditor]:
        log = SealedLog(conn, ops, auditor, home, make_sealer(home))
        report = await log.verify()
        assert (report.faults, report.checkpoints > 0, report.released) == ([], True, 1)
        assert report.hashed == report.rows == await conn.fetchval("select count(*) from audit_log") - report.unsealed
        return log


@pytest.fixture
async def source(pg_server: Server, database_url: str, role_url: Callable[[str], str], tmp_path: Path) -> Place:
    """A database with rows in every table."""
    place = Place(lambda role: role_url(role) if role else database_url, binaries(major_of(database_url)))
    await fill(place.url, tmp_path / "audit", "http://127.0.0.1:1/hook")
    return place


def major_of(url: str) -> int:
    """Return the server's major version."""
    with psycopg.connect(url) as session:
        return session.info.server_version // 10000


@pytest.fixture
def target(pg_server: Server) -> Iterator[Place]:
    """An empty database of the same server."""
    name = f"pulse_restored_{os.getpid()}"
    place = make_place(pg_server, name)
    yield place
    with psycopg.connect(pg_server.url(database="postgres"), autocommit=True) as session:
        session.execute(f"drop database {name} with (force)".encode())


async def test_every_table_has_rows_and_every_row_comes_back(source: Place, target: Place, tmp_path: Path) -> None:
    """A dump holds all that Pulse and its users made: rows, guards, grants and comments. No repair is needed."""
    before = await contents(source.url)
    assert [name for name, (rows, _) in before.items() if rows == 0] == []
    dump, again = tmp_path / "pulse.dump", tmp_path / "again.dump"
    source.run("pg_dump", "--format=custom", f"--file={dump}")
    target.run("pg_restore", "--exit-on-error", str(dump))
    assert await contents(target.url) == before
    target.run("pg_dump", "--format=custom", f"--file={again}")
    assert target.list_objects(again) == source.list_objects(dump)
    # A definition that Postgres prints differently after a restore is rebuilt each time: give a constant its name.
    assert definitions(target) == definitions(source)
    migrator = Migrator(target.url(None))
    assert migrator.upgrade().startswith("nothing to do")
    migrator.run(command.check)
    await verify(target, tmp_path / "audit")
    await require_guards(target.url)


@pytest.mark.slow
async def test_what_a_restore_left_out_is_named_and_comes_back(source: Place, target: Place, tmp_path: Path) -> None:
    """Without grants, comments and triggers the layer differs from its record."""
    dump = tmp_path / "pulse.dump"
    source.run("pg_dump", "--format=custom", "--no-privileges", "--no-comments", f"--file={dump}")
    kept = [line for line in target.list_dump(dump) if " TRIGGER " not in line]
    (tmp_path / "list").write_text("\n".join(kept))
    target.run("pg_restore", "--exit-on-error", f"--use-list={tmp_path / 'list'}", str(dump))
    async with superuser(target.url) as conn:  # a user's schema is the user's to grant
        await conn.execute(f'grant usage on schema "My Own" to {OWNER}')
    migrator = Migrator(target.url(None))
    with pytest.raises(CommandError, match=r"not as it was applied: missing comment on .* and \d+ more"):
        migrator.run(command.check)
    assert "the SQL layer is not as it was applied: missing comment on" in migrator.upgrade()
    assert definitions(target) == definitions(source)
    assert migrator.upgrade().startswith("nothing to do")
    await require_guards(target.url)


# A definition of an older Pulse: Postgres dumps the condition without its casts, and cannot read it back.
OLDER = """
drop trigger track_update on alerts;
create trigger track_update after update on alerts for each row
  when ((row(old.silenced_until))::record *<> (row(new.silenced_until))::record)
  execute function audit._capture_changes('alert', '{}', '{silenced_until}');
update sql_layer set sha256 = 'older';
alter table sql_layer drop column definitions;
"""


@pytest.mark.slow
async def test_a_database_of_an_older_pulse_is_mended_before_its_dump_or_after(
    source: Place, target: Place, tmp_path: Path
) -> None:
    """Its dump comes back without the trigger; the upgrade makes it, and the next dump is complete."""
    async with superuser(source.url) as conn:
        await conn.execute(OLDER)
    dump = tmp_path / "pulse.dump"
    source.run("pg_dump", "--format=custom", f"--file={dump}")
    with pytest.raises(AssertionError, match=r"operator does not exist: timestamp with time zone \*<> timestamp"):
        target.run("pg_restore", str(dump))
    async with superuser(target.url) as conn:
        await conn.execute("set pulse.actor_id = ''")
        await conn.execute("update alerts set silenced_until = now()")
    Migrator(target.url(None)).upgrade()
    await require_guards(target.url)

    Migrator(source.url(None)).upgrade()
    source.run("pg_dump", "--format=custom", f"--file={dump}")
    with psycopg.connect(target.url(None), autocommit=True) as session:
        session.execute(WIPE)
    target.run("pg_restore", "--exit-on-error", str(dump))
    assert Migrator(target.url(None)).upgrade().startswith("nothing to do")
    await require_guards(target.url)


async def test_a_restore_without_owners_is_refused_with_the_remedy(
    source: Place, target: Place, tmp_path: Path
) -> None:
    """The owner could not migrate objects of the login that restored."""
    dump = tmp_path / "pulse.sql"
    source.run("pg_dump", "--no-owner", f"--file={dump}")
    target.run("psql", "-Xq", "-v", "ON_ERROR_STOP=1", "--output=/dev/null", f"--file={dump}")
    refusal = rf"nothing was changed: schema api belongs to \w+, not to {OWNER}\. .* --role={OWNER}, or PGOPTIONS="
    with pytest.raises(CommandError, match=refusal):
        Migrator(target.url(None)).upgrade()


@dataclass(frozen=True, slots=True)
class Way:
    """A way to move a database from one server to another."""

    dump: list[str]
    restore: list[str]
    login: str | None = None

    def take(self, source: Place, target: Place, file: Path) -> None:
        """Dump with the programs of the target's version, never an older one, and restore."""
        dumped = Place(source.url, target.bin_dir)
        dumped.run("pg_dump", *self.dump, f"--file={file}")
        if "--format=custom" in self.dump:
            target.run("pg_restore", "--exit-on-error", *self.restore, str(file), url=target.url(self.login))
        else:
            quiet = ["-Xq", "-v", "ON_ERROR_STOP=1", "--output=/dev/null"]
            target.run("psql", *quiet, f"--file={file}", url=target.url(self.login), **options_of(self.restore))


def options_of(restore: list[str]) -> dict[str, str]:
    """Return the variable that lets psql restore as the owner."""
    return {"PGOPTIONS": f"-c role={OWNER}"} if restore else {}


WAYS = {
    "custom": Way(["--format=custom"], []),
    "plain": Way(["--format=plain"], []),
    "ownerless": Way(["--format=custom"], OWNERLESS),
    "ownerless_plain": Way(["--format=plain", "--no-owner"], OWNERLESS),
    "deployer": Way(["--format=custom"], OWNERLESS, login="deployer"),
}


@pytest.fixture
def servers(tmp_path: Path, require: Callable[[str], str]) -> Iterator[dict[int, Server]]:
    """Debian's Postgres 15 and the embedded one."""
    with (
        EmbeddedPostgres(tmp_path / "15", durable=False, bin_dir=Path(require(DEBIAN_15)).parent) as old,
        EmbeddedPostgres(tmp_path / "18", durable=False) as new,
    ):
        for server in (old, new):
            make_login(server, "createrole")
        yield {
            major: Server(host=str(server.socket_dir), port=str(server.port), user="postgres", password=None)
            for major, server in ((15, old), (18, new))
        }


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("major", [15, 18])
async def test_a_database_moves_between_servers(servers: dict[int, Server], tmp_path: Path, major: int) -> None:
    """Plain or custom, with or without owners, by a superuser or not: all rows are there after an upgrade."""
    async with Receiver() as receiver:
        source = make_place(servers[15], "pulse")
        Migrator(source.url(None)).upgrade()
        await fill(source.url, tmp_path / "audit", receiver.url + "/hook")
        fresh = make_place(servers[major], "fresh")
        Migrator(fresh.url(None)).upgrade()
        before = await contents(source.url)
        targets = {name: make_place(servers[major], name) for name in WAYS}
        for name, way in WAYS.items():
            target = targets[name]
            with psycopg.connect(target.url(None), autocommit=True) as session:
                # A managed server's administrator may own the database, act as the owner and make extensions.
                session.execute(f"alter database {name} owner to deployer; grant {OWNER} to deployer".encode())
            way.take(source, target, tmp_path / name)
            assert await contents(target.url) == before
            said = Migrator(target.url(way.login)).upgrade()
            expected = (
                "nothing to do" if major == 15 else "the SQL layer is not as it was applied: its definitions were"
            )
            assert said.startswith(expected)
            assert Migrator(target.url(way.login)).upgrade().startswith("nothing to do")
            Migrator(target.url(way.login)).run(command.check)
            assert definitions(target) == definitions(fresh)
            await verify(target, tmp_path / "audit")
            await require_guards(target.url)
        # test_sealing_moves and test_operate show that sealing continues after such a move.
        await serve(targets["deployer"].url, receiver)
