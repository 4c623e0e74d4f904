"""AuditLogger against a real Postgres: no event lost or repeated under any failure of connection or server."""

import asyncio
import os
import random
import signal
import string
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from functools import partial
from pathlib import Path

import asyncpg
import orjson
import pytest
from prometheus_client import CollectorRegistry

from services.local.postgres.server import EmbeddedPostgres
from services.shared import db, tracing
from services.shared.audit import AuditEvent, Facts, open_audit_logger
from services.shared.audit_writer.buffer import Lane
from services.shared.audit_writer.gaps import Losses
from services.shared.audit_writer.ledger import EventLedger
from services.shared.audit_writer.line import Line, make_line
from services.shared.settings import UiSettings
from tests.support.cutting_proxy import Cut, CuttingProxy
from tests.support.migrator import Migrator
from tests.support.trail import Trail, expected, stored
from tests.support.wait import until

COMMITS = 25


@pytest.fixture
async def trail(app_pool: db.Pool) -> AsyncIterator[Trail]:
    """A running trail."""
    trail = Trail(app_pool)
    await trail.logger.start()
    yield trail
    await trail.logger.stop()


async def test_an_event_arrives_as_it_was_logged(trail: Trail, conn: asyncpg.Connection) -> None:
    """Both ways into the table, COPY and the procedure, keep every field."""
    with tracing.use_trace_id("ab" * 16):
        alice = db.Actor("user", "alice", "Alice")
        trail.logger.log(
            trail.logger.auth.success(
                tenant_id="acme", actor=alice, ip_address="10.1.2.3", duration_ms=1.5, details={"n": 1}
            )
        )
        trail.logger.log(
            trail.logger.auth.failure(
                reason="expired",
                tenant_id="acme",
                actor=alice,
                ip_address="::ffff:10.1.2.4",
                duration_ms=2.5,
                details={"n": 2},
            )
        )
    await trail.logger.stop()
    rows = await conn.fetch("select * from audit_log order by duration_ms")
    common = {
        "tenant_id": "acme",
        "category": "auth",
        "source_service": "ui_iot",
        "trace_id": "ab" * 16,
        "actor_type": "user",
        "actor_id": "alice",
        "actor_name": "Alice",
    }
    kept = [
        {**common, "event_type": "auth.login_success", "severity": "info", "details": {"n": 1}},
        {
            **common,
            "event_type": "auth.login_failure",
            "severity": "warning",
            "details": {"n": 2, "reason": "expired"},
        },
    ]
    found = [{**row, "details": orjson.loads(row["details"])} for row in rows]
    # The same account has the same pseudonym, whether admitted or refused.
    assert len({row["details"].pop("account") for row in found}) == 1
    assert [{name: row[name] for name in kept[0]} for row in found] == kept
    assert [row["duration_ms"] for row in rows] == [1.5, 2.5]
    assert [str(row["ip_address"]) for row in rows] == ["10.1.2.3", "10.1.2.4"]
    assert rows[1]["message"] == "caller turned away: expired"


async def test_each_helper_writes_its_type(trail: Trail, conn: asyncpg.Connection) -> None:
    """The typed helpers and the registry agree on types and severities."""
    device = db.Actor("device", "boiler-1")
    trail.logger.log(trail.logger.auth.success(actor=device))
    trail.logger.log(trail.logger.auth.success(actor=db.Actor("user", "alice")))
    trail.logger.log(trail.logger.auth.token_refresh(tenant_id="acme"))
    trail.logger.log(trail.logger.auth.failure(reason="rate_limited", ip_address="10.1.2.3"))
    for reason in ("expired", "forbidden"):
        trail.logger.log(trail.logger.auth.failure(reason=reason))
    trail.logger.device_rejected(reasons={"not_finite": 2, "too_old": 1}, actor=device, tenant_id="acme")
    await trail.logger.stop()
    found = await conn.fetch(
        "select a.event_type, a.severity = t.severity as agrees, a.details, a.entity_id"
        " from audit_log a left join audit.event_types t using (event_type) order by 1"
    )
    assert all(row["agrees"] for row in found)
    assert [row["event_type"] for row in found] == [
        "auth.forbidden",
        "auth.login_failure",
        "auth.login_success",
        "auth.rate_limited",
        "auth.token_refresh",
        "device.authenticated",
        "device.readings_refused",
    ]
    assert found[-1]["details"] == '{"reasons": {"too_old": 1, "not_finite": 2}, "refused": 3}'
    assert [row["entity_id"] for row in found] == [None, None, None, None, None, "boiler-1", "boiler-1"]


async def test_an_idle_logger_writes_at_once_and_then_sleeps(trail: Trail, conn: asyncpg.Connection) -> None:
    """No timer delays an event, and no task runs while no event arrives."""
    for number in range(1, 4):
        trail.send(1)
        await until(partial(trail.has_written, number))
        assert await stored(conn) == expected(number)
    await until(lambda: trail.metric("buffer_events") == 0)


async def test_a_clean_stop_loses_nothing(app_pool: db.Pool, conn: asyncpg.Connection) -> None:
    """Ten thousand events logged before the first is written are all there after stop()."""
    trail = Trail(app_pool)
    trail.send(10_000)
    await trail.logger.start()
    assert await trail.logger.stop() == 0
    assert await stored(conn) == expected(10_000)
    assert trail.has_written(10_000)


def cuts(seed: int) -> Iterator[Cut]:
    """Return what happens at each commit, mostly bad."""
    return iter(random.Random(seed).choices(("before", "after", "pass"), k=COMMITS))


@pytest.mark.parametrize("seed", [1, 2])
async def test_cut_connections_lose_and_repeat_nothing(app_url: str, conn: asyncpg.Connection, seed: int) -> None:
    """Connections are cut before a commit reaches the server, or after the commit with its answer lost."""
    async with CuttingProxy(app_url, cuts(seed)) as proxy:
        pool = await db.open_pool(UiSettings(database_url=proxy.url, pool_min_size=0, pool_max_size=2))
        trail = Trail(pool)
        await trail.logger.start()
        while len(proxy.cuts) < COMMITS:
            trail.send(100)
            seen = len(proxy.cuts)
            await until(partial(_is_longer, proxy.cuts, seen))
        assert await trail.logger.stop(seconds=30) == 0
        assert proxy.cuts.count("before") >= 5
        assert proxy.cuts.count("after") >= 5
        assert trail.metric("write_failures_total") + trail.metric("write_failures_total", "auth_failures") >= 10
        await pool.close()
    assert await stored(conn) == expected(trail.sent)


async def test_killed_backends_lose_and_repeat_nothing(trail: Trail, conn: asyncpg.Connection) -> None:
    """The server repeatedly ends the writer's connections, in the middle of any statement."""
    kill = (
        "select count(pg_terminate_backend(pid)) from pg_stat_activity where usename = 'pulse_app'"
        " and datname = current_database()"
    )
    killed = 0
    while killed < 20:
        if trail.logger.waiting < 20_000:  # it may take long to connect again, and a full buffer is another test
            trail.send(500)
        await asyncio.sleep(0)  # lets the writer begin
        killed += await conn.fetchval(kill)
    assert await trail.logger.stop(seconds=30) == 0
    assert await stored(conn) == expected(trail.sent)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the server's user can enter, unlike pytest's own, so that the whole server stays in it."""
    with tempfile.TemporaryDirectory(prefix="pulse-test-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "postgres"


@pytest.mark.slow
async def test_a_killed_server_loses_and_repeats_nothing(home: Path) -> None:
    """The whole server dies in mid-write, is away for a while and returns; every event is there once."""
    with EmbeddedPostgres(home) as server:
        Migrator(server.url()).upgrade()
        pool = await db.open_pool(UiSettings(database_url=server.url("pulse_app"), pool_min_size=0, pool_max_size=2))
        trail = Trail(pool)
        await trail.logger.start()
        for _ in range(2):
            failures = trail.metric("write_failures_total")
            trail.send(2000)
            await until(partial(trail.has_begun, trail.sent))
            assert server.pid is not None
            os.kill(server.pid, signal.SIGKILL)
            trail.send(2000)
            await until(partial(trail.has_failed_since, failures))
            trail.send(2000)
            await until(lambda: server.pid is None)  # reaps it: to a lock file a zombie is alive
            server.start()
        assert await trail.logger.stop(seconds=30) == 0
        await pool.close()
        conn = await asyncpg.connect(server.url())
        assert await stored(conn) == expected(trail.sent)
        await conn.close()


async def test_a_poisoned_row_costs_no_neighbour(trail: Trail, conn: asyncpg.Connection) -> None:
    """Rows that the table refuses are found by halving and go to quarantine; all others are stored."""
    await conn.execute("alter table audit_log add constraint poison check (actor_name <> 'poison')")
    context = tracing.start()
    token = tracing.enter(context)
    for number in range(2000):
        name = "poison" if number in {0, 777, 1999} else "fine"
        trail.logger.log(trail.logger.auth.success(tenant_id="acme", actor=db.Actor("user", f"user-{number}", name)))
        trail.logger.log(
            trail.logger.auth.failure(
                reason="expired", tenant_id="acme", actor=db.Actor("user", f"user-{number}", name)
            )
        )
    trail.logger.log(AuditEvent(event_type="no dot", message="a type that is none"))
    tracing.leave(token)
    await trail.logger.stop()
    assert await conn.fetchval("select count(*) from audit_log where category = 'auth'") == 2 * 1997
    quarantined = await conn.fetch(
        "select details #>> '{event,actor_id}' as actor, details ->> 'sqlstate' as sqlstate, trace_id from audit_log"
        " where event_type = 'audit.quarantined' order by 1 nulls last"
    )
    poisoned = [repr(f"user-{number}") for number in (0, 1999, 777)]
    assert [row["actor"] for row in quarantined] == [actor for actor in poisoned for _ in range(2)] + [None]
    assert {row["sqlstate"] for row in quarantined} <= {"23514", "23502"}
    # The row has the trace of the request that it describes.
    assert {row["trace_id"] for row in quarantined} == {context.trace_id}
    assert trail.metric("events_quarantined_total") == 4
    assert trail.metric("events_quarantined_total", "auth_failures") == 3


async def test_hostile_values_are_stored_without_a_repair(trail: Trail, conn: asyncpg.Connection) -> None:
    """Values from clients are cleaned before the batch, so none costs a batch, a row or a place in quarantine."""
    hostile = "\x00\n\r\t\x1b\x1f\\|'\"\x7f\u202e\u2028\ud800\U0001f600é"
    random_ = random.Random(3)

    def text() -> str:
        length = random_.choice((0, 1, 5, 50, 5000))
        return "".join(random_.choices(hostile + string.ascii_letters, k=length))

    for _ in range(500):
        actor = db.Actor(text(), text(), text())
        details = {text(): text(), "deep": [{text(): text()}], "number": random_.choice((2**80, float("nan"), 1e308))}
        facts = Facts(tenant_id=text(), actor=actor, ip_address=text(), details=details, duration_ms=float("inf"))
        trail.logger.log(trail.logger.auth.success(**facts))
        trail.logger.log(trail.logger.auth.failure(reason=text() or "expired", **facts))
    await trail.logger.stop()
    assert await conn.fetchval("select count(*) from audit_log where category = 'auth'") == 1000
    for buffer in ("events", "auth_failures"):
        assert trail.metric("write_failures_total", buffer) == 0
        assert trail.metric("events_quarantined_total", buffer) == 0


async def test_a_row_sent_twice_costs_no_neighbour(trail: Trail, conn: asyncpg.Connection) -> None:
    """COPY has no ON CONFLICT: a duplicate fails its batch, and still each event is stored once."""
    event = AuditEvent(event_type="auth.token_refresh", message="caller got a fresh session")
    for _ in range(3):
        trail.logger.log(event)
    trail.send(300)
    await trail.logger.stop()
    assert await conn.fetchval("select count(*) from audit_log where event_id = $1", event.event_id) == 1
    assert await conn.fetchval("select count(*) from audit_log") == 301


async def test_a_broken_table_is_waited_for(trail: Trail, conn: asyncpg.Connection) -> None:
    """When even quarantine rows are refused, the table is at fault: events wait until it is repaired."""
    await conn.execute("alter table audit_log add constraint poison check (false) not valid")
    trail.send(30)
    await until(lambda: trail.metric("write_failures_total") >= 2)
    await conn.execute("alter table audit_log drop constraint poison")
    await trail.logger.stop(seconds=30)
    assert await conn.fetchval("select count(*) from audit_log") == 30


async def test_a_full_buffer_drops_the_newest_and_says_so(
    app_pool: db.Pool, conn: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """Lost events are counted in a metric, logged once, and recorded in one row with count and bounds of time."""
    trail = Trail(app_pool, audit_buffer_size=100)
    accepted = [
        trail.logger.log(trail.logger.auth.success(tenant_id="acme", actor=db.Actor("user", f"user-{number}")))
        for number in range(130)
    ]
    assert accepted == [True] * 100 + [False] * 30
    assert trail.metric("events_dropped_total") == 30
    assert trail.metric("buffer_events") == 100
    assert [record.message for record in caplog.records] == ["audit events are lost: the buffer was full"]
    await trail.logger.start()
    await trail.logger.stop()
    assert await stored(conn) == expected(100)
    gap = await conn.fetchrow(
        "select *, details ->> 'count' as lost, (details ->> 'first_at')::timestamptz as first_at,"
        " (details ->> 'last_at')::timestamptz as last_at, details -> 'by_type' as types"
        " from audit_log where event_type = 'audit.gap'"
    )
    assert (gap["lost"], gap["types"], gap["severity"]) == ("30", '{"auth.login_success": 30}', "error")
    newest = await conn.fetchval("select max(timestamp) from audit_log where category = 'auth'")
    assert newest <= gap["first_at"] <= gap["last_at"] <= gap["timestamp"]


async def test_a_flood_of_refusals_leaves_room_for_the_rest(app_pool: db.Pool, conn: asyncpg.Connection) -> None:
    """Refused logins have their own buffer, so an attacker cannot displace other events."""
    trail = Trail(app_pool, audit_buffer_size=100)
    for _ in range(500):
        trail.logger.log(trail.logger.auth.failure(reason="expired"))
    assert trail.logger.log(trail.logger.auth.success(tenant_id="acme", actor=db.Actor("user", "user-0")))
    await trail.logger.start()
    await trail.logger.stop()
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'auth.login_success'") == 1
    assert await conn.fetchval("select count(*) from audit_log where event_type = 'auth.login_failure'") == 100
    assert await conn.fetchval("select details ->> 'count' from audit_log where event_type = 'audit.gap'") == "400"


async def test_a_stop_that_comes_to_nothing_ends_in_time_and_says_what_is_lost(
    app_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With neither database nor spool, stop() returns after its deadline with the number of lost events."""
    url = app_url.replace("/pulse_test", "/no_such_database")
    assert url != app_url
    pool = await db.open_pool(UiSettings(database_url=url, pool_min_size=0))
    trail = Trail(pool, audit_spool_dir="/dev/null/spool")
    await trail.logger.start()
    trail.send(30)
    assert await trail.logger.stop(seconds=0.3) == 30
    lost = [record for record in caplog.records if record.message == "audit events lost at stop"]
    assert sum(record.__dict__["lost"] for record in lost) == 30
    assert trail.metric("events_dropped_total") + trail.metric("events_dropped_total", "auth_failures") == 30
    assert not trail.logger.log(trail.logger.auth.failure(reason="expired"))
    pool.terminate()


async def test_a_crashed_writer_is_reported_at_once(caplog: pytest.LogCaptureFixture) -> None:
    """A fault in the writer must not silently leave a buffer that is never emptied."""

    async def fail(lines: Sequence[Line]) -> bool:
        raise AssertionError(len(lines))

    accounts = EventLedger(None, "ui_iot").accounts
    losses = Losses("ui_iot", accounts["lost"], on_loss=lambda: None)
    lane = Lane("events", fail, limit=10, batch_size=10, account=accounts["events"], losses=losses)
    lane.start()
    lane.put(make_line(AuditEvent(event_type="auth.token_refresh", message="m"), "ui_iot"))
    await until(lambda: "the audit writer has crashed" in caplog.text)
    assert len(await lane.stop(seconds=1)) == 1


async def test_no_secret_reaches_row_or_log(
    trail: Trail, conn: asyncpg.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    """A token in a user name is in neither, even if its row is refused and quarantined."""
    await conn.execute("alter table audit_log add constraint poison check (category <> 'auth')")
    token = "pdt_acme_" + "x" * 43
    trail.logger.log(
        trail.logger.auth.success(
            actor=db.Actor("user", token, f"Bearer {token}"), details={"password": "hunter2", "u": token}
        )
    )
    trail.logger.log(
        trail.logger.auth.failure(
            reason="expired", actor=db.Actor("user", token), details={"u": f"https://x:{token}@y"}
        )
    )
    await trail.logger.stop()
    rows = await conn.fetch("select a::text from audit_log a")
    assert len(rows) == 2
    for text in [*(row[0] for row in rows), caplog.text, *(str(record.__dict__) for record in caplog.records)]:
        assert "xxxx" not in text
        assert "hunter2" not in text


async def test_the_logger_has_connections_of_its_own(app_url: str, database_url: str, conn: asyncpg.Connection) -> None:
    """open_audit_logger takes no connection from the requests' pool, uses at most two, and closes both."""
    locker = await asyncpg.connect(database_url)
    await locker.execute("begin; lock table audit_log in access exclusive mode")
    registry = CollectorRegistry()
    async with open_audit_logger(UiSettings(database_url=app_url), registry=registry) as logger:
        for _ in range(50):
            logger.log(logger.auth.success(actor=db.Actor("user", "user-1")))
            logger.log(logger.auth.failure(reason="expired"))
        mine = "select count(*) from pg_stat_activity where usename = 'pulse_app' and datname = current_database()"
        blocked = mine + " and wait_event_type = 'Lock'"
        await until(lambda: _is(conn, blocked, 2))
        await locker.close()
    assert await conn.fetchval("select count(*) from audit_log") == 100
    await until(lambda: _is(conn, mine, 0))


def _is_longer(cuts: list[Cut], length: int) -> bool:
    return len(cuts) > length


async def _is(conn: asyncpg.Connection, query: str, value: object) -> bool:
    return bool(await conn.fetchval(query) == value)
