"""A process that writes audit events is killed: acknowledged events are stored, and lost events are reported."""

import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest

from services.local.postgres.server import EmbeddedPostgres
from services.shared.audit_writer.gaps import make_remains_line
from services.shared.audit_writer.ledger import EventLedger, read_remains
from services.shared.audit_writer.spool import directories
from services.shared.audit_writer.spool_directory import SpoolDirectory
from tests.support.cutting_proxy import Cut, CuttingProxy
from tests.support.migrator import ROOT, Migrator
from tests.support.trail import expected, open_trail, stored
from tests.support.wait import until


class Victim:
    """The process to kill."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def do(self, command: str) -> None:
        """Send a command and wait until it is done."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{command}\n".encode())
        await self.is_done()

    async def is_done(self) -> None:
        """Wait for its answer."""
        assert self.process.stdout is not None
        assert await asyncio.wait_for(self.process.stdout.readline(), 20) == b"done\n"

    async def kill(self) -> None:
        """Kill the process, as a crash does."""
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()


@asynccontextmanager
async def victim(url: str, **settings: str) -> AsyncIterator[Victim]:
    """Yield a process that is ready to write."""
    environment = os.environ | {"PULSE_DATABASE_URL": url, **{f"PULSE_{k.upper()}": v for k, v in settings.items()}}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.audit_victim"),
        cwd=ROOT,
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        running = Victim(process)
        await running.is_done()
        yield running
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
async def locked(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Connection that holds a lock on audit_log; closing it lets writers continue."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("begin; lock table audit_log in access exclusive mode")
    yield connection
    await connection.close()


async def gaps(conn: asyncpg.Connection) -> list[dict[str, Any]]:
    """Return the details of all audit.gap rows."""
    rows = await conn.fetch("select details from audit_log where event_type = 'audit.gap' order by timestamp")
    return [orjson.loads(row[0]) for row in rows]


async def test_what_a_killed_process_spooled_is_stored_by_the_next(
    app_url: str, conn: asyncpg.Connection, locked: asyncpg.Connection, spool_dir: Path
) -> None:
    """Acknowledged on the disk, then kill -9: each event is stored once, in order, and no gap is reported."""
    async with victim(app_url, audit_database_seconds="0.1") as killed:
        await killed.do("record 20")
        await killed.kill()
    assert len(directories(spool_dir)) == 1
    await locked.close()
    async with open_trail(app_url) as trail:
        await until(lambda: trail.total("events_drained_total") == 20)
    rows = await conn.fetch("select actor_id from audit_log where category = 'auth' order by xid, timestamp")
    assert [row[0] for row in rows] == expected(20)
    assert await gaps(conn) == []
    assert directories(spool_dir) == []


async def test_what_a_killed_process_could_not_account_for_is_one_gap_row(
    app_url: str, conn: asyncpg.Connection, locked: asyncpg.Connection, spool_dir: Path
) -> None:
    """The row counts by kind, with process and bounds of time; a repeated report adds no second row."""
    before = datetime.now(UTC)
    async with victim(app_url, audit_database_seconds="60", audit_flood_rows_per_window="10") as killed:
        await killed.do("log 50")
        await killed.do("telemetry 7")
        await killed.do("refuse 30")
        await killed.kill()
        pid = killed.process.pid
    after = datetime.now(UTC)
    await locked.close()
    # Its server processes finish or abandon their statements: a count is an upper bound, never less.
    [directory] = directories(spool_dir)
    ledger = (directory / "ledger").read_bytes()
    async with open_trail(app_url) as trail:
        await until(lambda: trail.total("gaps_total") == 1)
    [gap] = await gaps(conn)
    assert gap["by_buffer"] == {"events": 50, "telemetry": 7, "auth_failures": 10, "aggregated": 20}
    assert (gap["count"], gap["at_most"], gap["process"]) == (87, True, pid)
    first_at, last_at = (datetime.fromisoformat(gap[name]) for name in ("first_at", "last_at"))
    assert before <= first_at <= last_at <= after
    # As if the process that reported the gap had been killed before it could remove the ledger.
    directory.mkdir()
    (directory / "ledger").write_bytes(ledger)
    async with open_trail(app_url) as trail:
        await until(lambda: trail.total("gaps_total") == 1)
    assert len(await gaps(conn)) == 1
    assert directories(spool_dir) == []


async def test_a_killed_process_that_had_stored_everything_leaves_no_gap(
    app_url: str, conn: asyncpg.Connection, spool_dir: Path
) -> None:
    async with victim(app_url) as killed:
        await killed.do("record 5")
        await killed.kill()
    assert len(directories(spool_dir)) == 1
    async with open_trail(app_url):
        await until(lambda: len(directories(spool_dir)) == 1 and _others(spool_dir) == [])
    assert await stored(conn) == expected(5)
    assert await gaps(conn) == []


async def test_spooled_rows_that_vanish_are_missed(
    app_url: str, conn: asyncpg.Connection, locked: asyncpg.Connection, spool_dir: Path
) -> None:
    """Cut at a place where a crash could cut: only the ledger shows that more had been acknowledged."""
    async with victim(app_url, audit_database_seconds="0.1") as killed:
        await killed.do("record 20")
        await killed.kill()
    [file] = segments(spool_dir)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    await locked.close()
    async with open_trail(app_url) as trail:
        await until(lambda: trail.total("gaps_total") == 1)
    kept = await stored(conn)
    assert kept == expected(len(kept))
    assert 5 < len(kept) < 15
    [gap] = await gaps(conn)
    assert gap["by_buffer"] == {"spooled": 20 - len(kept)}


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_acknowledged_events_are_stored_once_and_the_others_are_reported(
    app_url: str, conn: asyncpg.Connection, spool_dir: Path, seed: int
) -> None:
    """Processes killed in mid-stream, their connections cut around COMMIT, a spool that is soon full."""
    chosen = random.Random(seed)
    asked: set[str] = set()
    kept: set[str] = set()
    lives = 4
    plan: Iterator[Cut] = iter(chosen.choices(("before", "after", "pass"), weights=(2, 2, 6), k=10_000))
    async with CuttingProxy(app_url, plan) as proxy:
        for _ in range(lives):
            limits = {
                "audit_database_seconds": "0.2",
                "audit_spool_bytes": str(chosen.choice((16384, 1 << 20))),
                "audit_flood_rows_per_window": "0",
            }
            async with victim(proxy.url, **limits) as killed:
                assert killed.process.stdin is not None
                assert killed.process.stdout is not None
                killed.process.stdin.write(b"stream 20\n")
                for number in range(chosen.randrange(400, 1200)):
                    if number == 200:
                        proxy.go_down()
                    if number == 300:
                        proxy.come_back()
                    note(await killed.process.stdout.readline(), asked, kept)
                await killed.kill()
                async for line in killed.process.stdout:
                    note(line, asked, kept)
            proxy.come_back()
    async with open_trail(app_url) as trail:
        await until(lambda: _others(spool_dir) == [])
    assert trail.total("spool_records") == 0
    rows = [row[0] for row in await conn.fetch("select actor_id from audit_log where category = 'auth'")]
    assert len(rows) == len(set(rows))
    assert len(kept) > 400
    assert kept - set(rows) == set()
    # An event is logged as requested before it is sent, so each process may have one that was neither.
    reported = sum(gap["count"] for gap in await gaps(conn))
    assert len(asked - set(rows)) <= reported + lives


def note(line: bytes, asked: set[str], kept: set[str]) -> None:
    """Keep what a stream said."""
    word, name = line.decode().split()
    (asked if word == "asked" else kept).add(name)


@pytest.mark.slow
async def test_a_server_that_stands_still_is_not_waited_for(spool_dir: Path) -> None:
    """All processes of Postgres are stopped: they refuse nothing, answer nothing, and cannot even cancel."""
    with tempfile.TemporaryDirectory(prefix="pulse-test-") as directory:
        Path(directory).chmod(0o755)  # noqa: ASYNC240  # no other task runs yet
        with EmbeddedPostgres(Path(directory) / "postgres") as server:
            Migrator(server.url()).upgrade()
            async with open_trail(server.url("pulse_app"), audit_database_seconds=0.3) as trail:
                await trail.record(3)
                await until(lambda: trail.total("spool_records") == 0)
                assert server.pid is not None
                with standing_still(server.pid):
                    started = time.monotonic()
                    await trail.record(3)
                    assert time.monotonic() - started < 3
                    assert trail.total("spool_records") == 3
                await until(lambda: trail.total("spool_records") == 0, seconds=30)
                await trail.record()
            conn = await asyncpg.connect(server.url())
            assert await stored(conn) == expected(7)
            assert await gaps(conn) == []
            await conn.close()


@contextmanager
def standing_still(pid: int) -> Iterator[None]:
    """Yield a process and its children, stopped."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    pids = [pid, *map(int, children)]
    for each in pids:
        os.kill(each, signal.SIGSTOP)
    try:
        yield
    finally:
        for each in pids:
            os.kill(each, signal.SIGCONT)


async def test_a_living_process_is_left_alone(
    app_url: str, conn: asyncpg.Connection, locked: asyncpg.Connection, spool_dir: Path
) -> None:
    """Two processes share the spool; each stores its own events and leaves the other's alone."""
    async with victim(app_url, audit_database_seconds="0.1") as other:
        await other.do("record 5")
        async with open_trail(app_url, audit_database_seconds=0.1) as trail:
            await trail.record(3)
            assert trail.total("spool_records") == 3
            assert len(directories(spool_dir)) == 2
            await locked.close()
            await until(lambda: trail.total("events_drained_total") == 3)
            await until(lambda: _is(conn, "select count(*) from audit_log where category = 'auth'", 8))


def test_a_ledger_counts_what_is_outstanding(spool_dir: Path) -> None:
    """Read from the file, as after a kill: taken less settled, of each kind, from the oldest that is left."""
    directory = SpoolDirectory.create(spool_dir, "ui_iot")
    ledger = EventLedger(directory.path, "ui_iot")
    assert read_remains(directory.path) is None
    events, lost = ledger.accounts["events"], ledger.accounts["lost"]
    events.take(1_000_000_000_000_000_000)
    events.take(1_000_000_001_000_000_000, 3)
    lost.take(1_000_000_002_000_000_000, 2)
    events.settle(1, next_ns=1_000_000_001_000_000_000)
    found = read_remains(directory.path)
    assert found is not None
    assert found.counts == {"events": 3, "lost": 2}
    assert (found.first_at.timestamp(), found.last_at.timestamp()) == (1_000_000_001, 1_000_000_002)
    assert found == read_remains(directory.path)
    assert make_remains_line(found) == make_remains_line(found)
    events.settle(3, next_ns=0)
    lost.settle(2)
    assert read_remains(directory.path) is None
    for torn in (b"", b"PULSLED1", bytes(4096)):
        (directory.path / "ledger").write_bytes(torn)
        assert read_remains(directory.path) is None
    directory.forget_ledger()
    directory.close()


def _others(spool_dir: Path) -> list[Path]:
    return [path for path in directories(spool_dir) if f"-{os.getpid()}-" not in path.name]


async def _is(conn: asyncpg.Connection, query: str, value: object) -> bool:
    return bool(await conn.fetchval(query) == value)


def segments(spool_dir: Path) -> list[Path]:
    """Return all segments of all processes."""
    return sorted(spool_dir.glob("*/*.spool"))
