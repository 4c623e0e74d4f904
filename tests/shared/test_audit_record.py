"""record(): an acknowledged event is durable, stored once, and in time, for any failure of database and disk."""

import asyncio
import itertools
import os
import random
import stat
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from services.shared import db
from services.shared.audit import AuditBlocked, AuditEvent
from services.shared.audit_writer.line import make_line
from services.shared.audit_writer.spool import Spool, directories
from tests.support.cutting_proxy import Cut, CuttingProxy
from tests.support.trail import Trail, expected, open_trail, stored
from tests.support.wait import until

NOWHERE = "/dev/null/spool"


@pytest.fixture
async def locked(database_url: str) -> asyncpg.Connection:
    """Connection that holds a lock on audit_log; closing it lets writers continue."""
    connection = await asyncpg.connect(database_url)
    await connection.execute("begin; lock table audit_log in access exclusive mode")
    return connection


async def test_record_returns_when_the_row_is_committed(app_url: str, conn: asyncpg.Connection) -> None:
    """Another session sees it at once: a login, a refusal and an event of class may."""
    async with open_trail(app_url) as trail:
        await trail.record()
        assert await stored(conn) == expected(1)
        await trail.logger.record(trail.logger.auth.failure(reason="expired", actor=db.Actor("user", "user-1")))
        assert await stored(conn) == expected(2)
        await trail.logger.record(trail.logger.auth.device_rejected(reasons={"too_old": 1}))
        assert await conn.fetchval("select count(*) from audit_log") == 3
        assert trail.total("record_wait_seconds_count") == 3
        assert trail.total("spool_records") == 0


async def test_every_metric_is_there_from_the_start(app_pool: db.Pool) -> None:
    """A rate over a series that appears with its first loss misses that loss."""
    trail = Trail(app_pool)
    single = (
        *("spool_bytes", "spool_records", "events_spooled_total", "events_drained_total", "events_blocked_total"),
        *("events_aggregated_total", "gaps_total", "record_wait_seconds_count"),
    )
    by_buffer = ("buffer_events", "events_written_total", "events_dropped_total", "events_quarantined_total")
    assert {name: trail.total(name) for name in single} == dict.fromkeys(single, 0.0)
    for buffer in ("events", "auth_failures", "telemetry"):
        found = {name: trail.metric(name, buffer) for name in (*by_buffer, "write_failures_total")}
        assert set(found.values()) == {0.0}
    await trail.logger.stop()


async def test_events_that_arrive_during_a_flush_share_the_next(app_url: str, conn: asyncpg.Connection) -> None:
    """Group commit: four hundred waiters cost two transactions, one for the first and one for all others."""
    async with CuttingProxy(app_url, plan("stall")) as proxy, open_trail(proxy.url) as trail:
        waiting = [asyncio.create_task(trail.record())]
        await until(lambda: proxy.cuts)
        waiting += [asyncio.create_task(trail.record()) for _ in range(400)]
        await asyncio.sleep(0)
        assert not any(task.done() for task in waiting)
        proxy.released.set()
        await asyncio.gather(*waiting)
        assert proxy.cuts == ["stall", "pass"]
    assert await stored(conn) == expected(401)
    assert await conn.fetchval("select count(distinct xid) from audit_log") == 2


async def test_a_caller_that_gives_up_waiting_cancels_no_other(app_url: str, conn: asyncpg.Connection) -> None:
    """A canceled request leaves its event in the batch, and the other waiters keep waiting."""
    async with CuttingProxy(app_url, plan("stall")) as proxy, open_trail(proxy.url) as trail:
        impatient, patient = (asyncio.create_task(trail.record()) for _ in range(2))
        await until(lambda: proxy.cuts)
        impatient.cancel()
        proxy.released.set()
        await patient
        with pytest.raises(asyncio.CancelledError):
            await impatient
    assert await stored(conn) == expected(2)


def plan(*cuts: Cut) -> Iterator[Cut]:
    """Return what happens at the first commits."""
    return iter(cuts)


def cuts(seed: int) -> Iterator[Cut]:
    """Return what happens at each commit, mostly bad."""
    return iter(random.Random(seed).choices(("before", "after", "pass"), k=40))


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12])
async def test_whatever_is_acknowledged_under_cuts_is_there_once(
    app_url: str, conn: asyncpg.Connection, seed: int
) -> None:
    """Cuts around COMMIT, with a spool as fallback: each acknowledged event is stored once in the end."""
    acknowledged: list[str] = []

    async def ask(trail: Trail) -> None:
        event = trail.login()
        await trail.logger.record(event)
        acknowledged.append(str(event.actor_id))

    async with CuttingProxy(app_url, cuts(seed)) as proxy:
        async with open_trail(proxy.url, audit_database_seconds=0.3) as trail:
            while len(proxy.cuts) < 40:
                seen = len(proxy.cuts)
                await asyncio.gather(*(ask(trail) for _ in range(20)))
                await until(partial(_is_longer, proxy.cuts, seen))
            await until(lambda: trail.total("spool_records") == 0)
        assert proxy.cuts.count("before") >= 5
        assert proxy.cuts.count("after") >= 5
    assert sorted(acknowledged) == sorted(await stored(conn)) == sorted(expected(trail.sent))


async def test_a_slow_database_is_not_waited_for(
    app_url: str, conn: asyncpg.Connection, locked: asyncpg.Connection
) -> None:
    """After the database's time limit, events go to the disk, later ones at once; all are stored when it returns."""
    async with open_trail(app_url, audit_database_seconds=0.2) as trail:
        started = time.monotonic()
        await asyncio.gather(*(trail.record() for _ in range(10)))
        first = time.monotonic() - started
        assert 0.2 <= first < 2
        started = time.monotonic()
        await trail.record(10)
        assert time.monotonic() - started < 0.2 * 10
        assert trail.total("spool_records") == 20
        assert trail.total("events_spooled_total") == 20
        assert trail.total("spool_bytes") > 20 * 100
        await locked.close()
        await until(lambda: trail.total("spool_records") == 0)
        assert await stored(conn) == expected(20)
        assert trail.total("events_drained_total") == 20
        await trail.record()
        assert trail.total("events_spooled_total") == 20
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'audit.gap'") == 0


async def test_a_database_that_is_away_and_comes_back(app_url: str, conn: asyncpg.Connection) -> None:
    """Connections are refused, not only slow; events logged without waiting are kept."""
    async with CuttingProxy(app_url) as proxy, open_trail(proxy.url, audit_database_seconds=0.2) as trail:
        await trail.record()
        await until(lambda: trail.total("spool_records") == 0)
        proxy.go_down()
        await trail.record(5)
        trail.send(6)
        await until(lambda: trail.total("spool_records") == 11)
        proxy.come_back()
        await until(lambda: trail.total("spool_records") == 0)
        assert await stored(conn) == expected(12)


async def test_spooled_events_are_stored_in_their_order(app_url: str, conn: asyncpg.Connection) -> None:
    """The order of transactions is the order of acknowledgements."""
    async with CuttingProxy(app_url) as proxy, open_trail(proxy.url, audit_database_seconds=0.2) as trail:
        proxy.go_down()
        await trail.record(30)
        proxy.come_back()
        await until(lambda: trail.total("spool_records") == 0)
    rows = await conn.fetch("select actor_id from audit_log order by xid, timestamp")
    assert [row[0] for row in rows] == expected(30)


async def test_a_clean_stop_without_a_database_keeps_everything(
    app_url: str, conn: asyncpg.Connection, locked: asyncpg.Connection, spool_dir: Path
) -> None:
    """This includes events that were only logged, of either class: the next process stores them without a gap."""
    async with open_trail(app_url, audit_database_seconds=0.2) as trail:
        trail.send(30)
        trail.logger.device_rejected(reasons={"too_old": 1})
        assert await trail.logger.stop(seconds=1) == 0
    assert len(directories(spool_dir)) == 1
    await locked.close()
    async with open_trail(app_url) as trail:
        await until(lambda: trail.total("events_drained_total") == 31)
    assert await stored(conn) == expected(30)
    assert await conn.fetchval("select count(*) from audit_log") == 31
    assert directories(spool_dir) == []


@pytest.mark.parametrize("policy", ["deny", "allow"])
async def test_with_neither_database_nor_spool_the_policy_decides(
    app_url: str, conn: asyncpg.Connection, locked: asyncpg.Connection, policy: str
) -> None:
    """It never hangs and counts the losses; once the database is back, a row states the number."""
    async with open_trail(
        app_url, audit_database_seconds=0.5, audit_spool_dir=NOWHERE, audit_when_blocked=policy
    ) as trail:
        for _ in range(5):
            started = time.monotonic()
            if policy == "deny":
                with pytest.raises(AuditBlocked):
                    await trail.record()
            else:
                await trail.record()
            assert time.monotonic() - started < 2
        assert trail.logger.is_blocked == (policy == "deny")
        assert trail.total("events_blocked_total") == 5
        assert trail.metric("events_dropped_total") == 5
        await locked.close()
        await until(lambda: trail.total("gaps_total") >= 1)
        await until(lambda: not trail.logger.is_blocked)
        await trail.record()
    lost = await conn.fetchval("select sum((details ->> 'count')::int) from audit_log where event_type = 'audit.gap'")
    kept = await stored(conn)
    # Rows that the lock let through after their caller gave up may be in both: a gap's count is an upper bound.
    assert lost == 5
    assert "user-5" in kept


async def test_a_full_spool_blocks_and_says_what_is_missing(
    app_url: str, conn: asyncpg.Connection, locked: asyncpg.Connection
) -> None:
    """PULSE_AUDIT_SPOOL_BYTES holds: everything acknowledged is stored, everything else is in a gap."""
    acknowledged = 0
    async with open_trail(app_url, audit_database_seconds=0.2, audit_spool_bytes=8192) as trail:
        while not trail.logger.is_blocked:
            try:
                await trail.record()
                acknowledged += 1
            except AuditBlocked:
                assert trail.logger.is_blocked
        assert acknowledged >= 10
        assert trail.total("spool_bytes") <= 8192
        await locked.close()
        await until(lambda: trail.total("gaps_total") == 1)
        await until(lambda: trail.total("spool_records") == 0)
    assert set(expected(acknowledged)) <= set(await stored(conn))
    gap = await conn.fetchrow("select details from audit_log where event_type = 'audit.gap'")
    assert '"count": 1,' in gap["details"]


async def test_the_processes_of_a_spool_share_its_limit(spool_dir: Path) -> None:
    """A second process does not fill the disk as far again."""
    spools = [Spool(spool_dir, service="ui_iot", limit=1 << 17) for _ in range(2)]
    rows = [make_line(AuditEvent(event_type="auth.login_success", message="m" * 1000), "ui_iot")]
    while await spools[0].append(rows):
        pass
    await spools[1].measure_others()
    assert spools[1].directory is not None
    assert spools[1].directory.size < 1 << 16
    assert not await spools[1].append(rows)
    for spool in spools:
        await spool.close()


async def test_a_gap_that_is_sent_twice_is_one_row(app_url: str, conn: asyncpg.Connection) -> None:
    """The answer to the gap's row is lost, so the row is sent again."""
    async with CuttingProxy(app_url, plan("after")) as proxy:
        async with open_trail(proxy.url, audit_buffer_size=10) as trail:
            for _ in range(14):
                trail.logger.log(trail.login())
            await until(lambda: trail.total("gaps_total") == 1)
        assert "after" in proxy.cuts
    gaps = await conn.fetch("select details from audit_log where event_type = 'audit.gap'")
    assert len(gaps) == 1
    assert len(await stored(conn)) == 10


async def test_the_acknowledgement_follows_the_fsync(
    app_url: str, locked: asyncpg.Connection, app_pool: db.Pool, spool_dir: Path
) -> None:
    """The caller waits for the disk, and the row is in the file before fsync is called."""
    asked, answer = threading.Event(), threading.Event()
    written: list[int] = []

    def sync(handle: int) -> None:
        found = os.fstat(handle)
        if stat.S_ISREG(found.st_mode):
            written.append(found.st_size)
            asked.set()
            assert answer.wait(10)
        os.fsync(handle)

    spool = Spool(spool_dir, service="ui_iot", limit=1 << 20, sync=sync)
    trail = Trail(app_pool, spool=spool, audit_database_seconds=0.1)
    await trail.logger.start()
    recording = asyncio.create_task(trail.record())
    await until(asked.is_set)
    assert not recording.done()
    assert written[0] > 200
    answer.set()
    await recording
    await locked.close()
    await trail.logger.stop()


async def test_a_disk_that_hangs_is_not_waited_for(
    app_url: str, locked: asyncpg.Connection, app_pool: db.Pool, spool_dir: Path
) -> None:
    """An fsync has no timeout: without an answer the spool counts as blocked."""
    answer = threading.Event()
    hangs = itertools.chain([False, False], itertools.repeat(True))  # the directory and its entry are made

    def sync(handle: int) -> None:
        if next(hangs):
            answer.wait(20)
        os.fsync(handle)

    spool = Spool(spool_dir, service="ui_iot", limit=1 << 20, sync=sync, seconds=0.3)
    trail = Trail(app_pool, spool=spool, audit_database_seconds=0.1)
    await trail.logger.start()
    started = time.monotonic()
    for _ in range(3):
        with pytest.raises(AuditBlocked):
            await trail.record()
    assert time.monotonic() - started < 1.5
    answer.set()
    await locked.close()
    await trail.logger.stop()


async def test_poisoned_neighbours_cost_nothing_on_either_way(app_url: str, conn: asyncpg.Connection) -> None:
    """A row that the table refuses is quarantined, by COPY and by the spool, and its waiter gets an answer."""
    await conn.execute("alter table audit_log add constraint poison check (actor_name <> 'poison')")

    def event(number: int) -> dict[str, Any]:
        name = "poison" if number % 7 == 0 else "fine"
        return {"tenant_id": "acme", "actor": db.Actor("user", f"user-{number}", name)}

    async with CuttingProxy(app_url) as proxy, open_trail(proxy.url, audit_database_seconds=0.5) as trail:
        auth = trail.logger.auth
        await asyncio.gather(*(trail.logger.record(auth.success(**event(number))) for number in range(50)))
        proxy.go_down()
        await asyncio.gather(*(trail.logger.record(auth.success(**event(number))) for number in range(50, 100)))
        proxy.come_back()
        await until(lambda: trail.total("spool_records") == 0)
    fine = [f"user-{number}" for number in range(100) if number % 7]
    assert await stored(conn) == fine
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'audit.quarantined'") == 15


def _is_longer(cuts: list[Cut], length: int) -> bool:
    return len(cuts) > length
