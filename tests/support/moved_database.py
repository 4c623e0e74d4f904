"""Databases that move to another server, with the tools an operator uses: pg_dump, base backups, standbys."""

import re
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import quote

import asyncpg
import psycopg

from services.local.postgres.account import find_account
from services.local.postgres.binaries import carried_binaries, reachable_binaries
from services.shared import db
from services.shared.settings import OpsSettings, UiSettings
from tests.support.hardened_server import DEPLOYER
from tests.support.postgres_server import ACTOR, PASSWORD
from tests.support.sealed_log import SealedLog, make_sealer


def binaries(major: int) -> Path:
    """Return the programs of a version of Postgres; a newer pg_dump sets parameters unknown to an older server."""
    debian = Path(f"/usr/lib/postgresql/{major}/bin")
    return debian if debian.exists() else carried_binaries()


def restore(source: str, target: str) -> None:
    """Load a dump of one database into another, empty one."""
    with psycopg.connect(target, autocommit=True) as session, suppress(psycopg.errors.DuplicateObject):
        programs = binaries(session.info.server_version // 10000)
        session.execute(f"create role {DEPLOYER}".encode())  # the schema of the tests' template is its own
    dump = subprocess.run(
        [str(programs / "pg_dump"), "--format=custom", f"--dbname={source}"], check=True, capture_output=True
    ).stdout
    subprocess.run(
        [str(programs / "pg_restore"), "--exit-on-error", "--no-password", f"--dbname={target}"], check=True, input=dump
    )


def spend_transactions(url: str, count: int) -> None:
    """Advance a server's counter of transactions."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(
            f"do $$ begin for n in 1..{count} loop perform pg_current_xact_id(); commit; end loop; end $$".encode()
        )


class PhysicalServer:
    """A server of the embedded programs with its own data directory, which can be copied, promoted and rewound."""

    def __init__(self, programs: Path | None = None) -> None:
        self.account = find_account()
        self.programs = programs or reachable_binaries(self.account)
        self.home = Path(mkdtemp(prefix="pulse-moving-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
        self.account.own(self.home, mode=0o700)
        self.data = self.home / "data"

    def run(self, *arguments: str, directory: Path = Path("/")) -> str:
        """Run one of the server's programs as its user."""
        program = str(self.programs / arguments[0])
        done = subprocess.run(
            [program, *arguments[1:]],
            check=False,
            cwd=directory,
            env={"LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            **self.account.spawn_options(),
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def make(self) -> None:
        """Run initdb, with checksums, which later versions have by default."""
        self.run(
            "initdb", "-D", str(self.data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync",
            "--data-checksums",
        )  # fmt: skip

    def copy_from(self, other: "PhysicalServer", *options: str) -> None:
        """Take a base backup of a running server."""
        self.run(
            "pg_basebackup", "-D", str(self.data), "-h", str(other.home), "-U", "postgres", "--checkpoint=fast",
            "--no-sync", *options,
        )  # fmt: skip

    def start(self) -> None:
        """Start the server and return when it takes connections."""
        # A test's server need survive no power cut, but the services refuse one that says so.
        options = (
            f"-c listen_addresses='' -c unix_socket_directories='{self.home}' -c max_connections=60 -c timezone=UTC"
        )
        self.run(
            "pg_ctl", "-D", str(self.data), "-w", "-l", str(self.home / "log"), "-o", options, "start"
        )  # fmt: skip

    def upgrade_from(self, old: "PhysicalServer") -> None:
        """Take over the data of a stopped server of an older version."""
        self.make()
        self.run(
            "pg_upgrade", "-b", str(old.programs), "-B", str(self.programs), "-d", str(old.data), "-D", str(self.data),
            "-U", "postgres", "-s", str(self.home), directory=self.home,
        )  # fmt: skip

    def stop(self, *, mode: str = "fast") -> None:
        """Stop the server if it runs."""
        if (self.data / "postmaster.pid").exists():
            self.run("pg_ctl", "-D", str(self.data), "-w", "-m", mode, "stop")

    def url(self, database: str = "pulse", user: str = "postgres") -> str:
        """URL of a database."""
        return f"postgresql://{user}@/{database}?host={quote(str(self.home), safe='')}&port=5432"


@contextmanager
def physical_servers(*programs: Path | None) -> Iterator[list[PhysicalServer]]:
    """Yield a server for each of these programs (None: the embedded ones); the first runs with a database `pulse`."""
    servers = [PhysicalServer(one) for one in programs]
    try:
        servers[0].make()
        servers[0].start()
        servers[0].run("createdb", "-h", str(servers[0].home), "-U", "postgres", "pulse")
        yield servers
    finally:
        for server in servers:
            server.stop(mode="immediate")
            subprocess.run(["rm", "-rf", str(server.home)], check=False)


@asynccontextmanager
async def sealed_log(url: str, home: Path) -> AsyncIterator[SealedLog]:
    """Yield the log in a database as a new sealer sees it, with the key and checkpoints of a home."""
    conn = await asyncpg.connect(url, server_settings=ACTOR)
    writer = await db.open_pool(OpsSettings(database_url=as_role(url, "pulse_ops")))
    reader = await db.open_pool(UiSettings(database_url=as_role(url, "pulse_auditor")))
    try:
        yield SealedLog(conn, writer, reader, home, make_sealer(home))
    finally:
        await conn.close()
        await db.close_pool(writer)
        await db.close_pool(reader)


def as_role(url: str, role: str) -> str:
    """Return the same URL for another role."""
    return re.sub(r"//[^@/]*@", f"//{role}:{PASSWORD}@", url)
