"""The commands of docs/operate.md, run as documented: back up, restore, recover, upgrade, move."""

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import pytest

from services.local.postgres.account import Account, find_account
from services.local.postgres.binaries import reachable_binaries
from tests.support.migrator import ROOT
from tests.support.receiver import Receiver
from tests.support.restored_database import Url, contents, fill, pools, require_guards, serve, superuser
from tests.support.sealed_log import SealedLog, make_sealer
from tests.support.servers import DEBIAN_15

PAGE = (ROOT / "docs" / "operate.md").read_text(encoding="utf-8")
AS_SERVER = "# As the server's user\n"
ALL_IS_WELL = "All is as it was sealed"


def blocks(heading: str, kind: str = "sh") -> list[str]:
    """Return the code blocks below a heading of the page, down to the next heading of its level or a higher one."""
    found: list[str] = []
    inside, fence = False, ""
    for line in PAGE.splitlines(keepends=True):
        if line.startswith("```"):
            fence = "" if fence else line.strip("`\n")
            if inside and fence == kind:
                found.append("")
        elif fence:
            if inside and fence == kind:
                found[-1] += line
        elif line.startswith("#"):
            level = len(line) - len(line.lstrip("#"))
            inside = line.strip() == heading or (inside and level > heading.count("#"))
    assert found, heading
    return found


@dataclass
class Operator:
    """A runner of blocks in the checkout, under the server's user where needed, with the page's variables."""

    base: Path
    account: Account
    sockets: Path
    variables: dict[str, str] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)
    running: Path | None = None
    """Data directory of the server that runs."""

    @property
    def url(self) -> Url:
        """Return URLs of the database `pulse`."""
        return lambda role: self.place(role or "postgres", "pulse")

    def place(self, role: str, database: str) -> str:
        """Return a URL of the database. The server's user and the current one may use the socket, in any role."""
        return f"postgresql://{role}@/{database}?host={quote(str(self.sockets), safe='')}"

    def directory(self, name: str) -> Path:
        """Return an empty directory of the server's user."""
        path = self.base / name
        path.mkdir()
        self.account.own(path, mode=0o700)
        return path

    async def run(self, *scripts: str, **variables: str) -> str:
        """Run blocks and return the output of the last one."""
        self.variables |= variables
        for script in scripts:
            self.said.append(await asyncio.to_thread(self._run, script))
        return self.said[-1]

    def _run(self, script: str) -> str:
        as_server = script.startswith(AS_SERVER)
        kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
        path = f"{self.variables['PATH']}:{kept.get('PATH', '/usr/bin:/bin')}"
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", script],
            check=False,
            cwd=self.base if as_server else ROOT,
            env=kept | {"PGHOST": str(self.sockets)} | self.variables | {"PATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            **(self.account.spawn_options() if as_server else {}),
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    async def start(self, data: Path) -> None:
        """Start the server that has this data directory."""
        await self.run(f'{AS_SERVER}pg_ctl --pgdata="{data}" --log="{data}/server.log" --wait start >/dev/null')
        self.running = data

    async def stop(self) -> None:
        """Stop the running server."""
        data, self.running = self.running, None
        if data is not None and (data / "postmaster.pid").exists():
            await self.run(f'{AS_SERVER}pg_ctl --pgdata="{data}" --wait --mode=fast stop >/dev/null')


@pytest.fixture
async def operator(require: Callable[[str], str]) -> AsyncIterator[Operator]:
    """Debian's Postgres 15 with an archive, on memory where there is one, and a login that is no superuser."""
    account = find_account()
    bin_dir = Path(require(DEBIAN_15)).parent
    with TemporaryDirectory(
        prefix="pulse-operate-", dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    ) as name:
        base = Path(name)
        account.own(base, mode=0o755)
        operator = Operator(base, account, base / "s")
        operator.directory("s")
        backup, old = operator.directory("backup"), operator.directory("old")
        for path in (backup / "wal", base / "home"):
            path.mkdir()
        account.own(backup / "wal", mode=0o700)
        settings = (
            f"listen_addresses = ''\nunix_socket_directories = '{operator.sockets}'\n" + blocks("## Back up", "ini")[0]
        )
        operator.variables = {
            "ADMIN_URL": operator.place("deployer", "postgres"),
            "BACKUP": str(backup),
            "KEYS": str(base / "home" / "audit"),
            "PATH": str(bin_dir),
            "PULSE_OPS_DATABASE_URL": operator.place("pulse_ops", "pulse"),
            "PULSE_AUDIT_DATABASE_URL": operator.place("pulse_auditor", "pulse"),
            "PULSE_HOME": str(base / "home"),
            "PULSE_MIGRATION_URL": operator.place("deployer", "pulse"),
        }
        await operator.run(
            f'{AS_SERVER}initdb --pgdata="{old}" --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8'
            f' >/dev/null; cat >>"{old}/postgresql.conf"<<"END"\n{settings.replace("$BACKUP", str(backup))}\nEND'
        )
        await operator.start(old)
        try:
            await operator.run(
                "psql -Xqc 'create role deployer login createrole createdb' -d postgres -U postgres",
                "psql -Xqc 'create database pulse' -d postgres -U deployer",
            )
            yield operator
        finally:
            await operator.stop()


async def rename_database(operator: Operator) -> None:
    """Rename the database to make room for a restored one."""
    await operator.run("psql -Xqc 'alter database pulse rename to pulse_old' -d postgres -U postgres")


async def seal_and_verify(operator: Operator) -> None:
    """Seal new rows with the old key and verify the whole log."""
    home = Path(operator.variables["KEYS"])
    async with superuser(operator.url) as conn, pools(operator.url, "pulse_ops", "pulse_auditor") as [ops, auditor]:
        log = SealedLog(conn, ops, auditor, home, make_sealer(home))
        before = await conn.fetchval("select count(*) from audit.blocks")
        await log.seal()
        assert await conn.fetchval("select count(*) from audit.blocks") > before
        report = await log.verify()
        assert (report.faults, report.unsealed) == ([], 0)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_every_command_of_the_page_works(operator: Operator) -> None:
    """One database passes all steps, with a row in every table and the services at the end."""
    async with Receiver() as receiver:
        await operator.run("./pulse migrate")
        await fill(operator.url, Path(operator.variables["KEYS"]), receiver.url + "/hook")
        before = await contents(operator.url)
        await operator.run(*blocks("## Back up"))
        async with superuser(operator.url) as conn:
            target = await conn.fetchval("select clock_timestamp()::text")
            await conn.execute("insert into devices (tenant_id, device_id, name) values ('acme', 'late', 'late')")
            await conn.execute("select pg_switch_wal()")

        await rename_database(operator)
        *restore, continue_log = blocks("### From a dump")
        assert ALL_IS_WELL in await operator.run(*restore)
        assert operator.said[-2].startswith("nothing to do")
        assert await contents(operator.url) == before
        await require_guards(operator.url)
        await operator.run(continue_log)
        await seal_and_verify(operator)
        # These files are kept from the database that is abandoned next.
        await operator.run('rm -r "$KEYS" && cp -R "$BACKUP/audit" "$KEYS"')

        await operator.stop()
        past = operator.directory("past")
        operator.running = past
        assert ALL_IS_WELL in await operator.run(*blocks("### To a moment in the past"), DATA=str(past), TARGET=target)
        assert operator.said[-1].startswith("nothing to do")
        assert await contents(operator.url) == before

        new_bin, new = str(reachable_binaries(operator.account)), operator.directory("new")
        directories = {
            "OLD_DATA": str(past),
            "NEW_DATA": str(new),
            "OLD_BIN": operator.variables["PATH"],
            "NEW_BIN": new_bin,
        }
        first, upgrade, last, continue_log = blocks("## Upgrade Postgres")
        await operator.run(first, upgrade, **directories)
        operator.running = new
        assert ALL_IS_WELL in await operator.run(last, PATH=new_bin)
        assert operator.said[-1].startswith("the SQL layer is not as it was applied: its definitions were recorded on")
        assert (await operator.run("./pulse migrate")).startswith("nothing to do")
        assert {name: rows for name, rows in (await contents(operator.url)).items() if rows != before[name]}.keys() == {
            "public.sql_layer"
        }
        await require_guards(operator.url)
        await operator.run(continue_log)
        await serve(operator.url, receiver)
        await seal_and_verify(operator)

        await rename_database(operator)
        before = await contents(lambda role: operator.place(role or "postgres", "pulse_old"))
        move, continue_log = blocks("## Move to another server")
        assert ALL_IS_WELL in await operator.run(move, OLD_URL=operator.place("deployer", "pulse_old"))
        assert await contents(operator.url) == before
        await require_guards(operator.url)
        await operator.run(continue_log)
        await seal_and_verify(operator)
