"""Partitions exist before they are needed, and creating one late loses no row of concurrent writers."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from services.ops_worker.workers.partition_worker import PartitionWorker
from services.shared.db import Pool
from tests.support import seed
from tests.support.clock import stop_clock
from tests.support.connections import Connect, is_blocked
from tests.support.wait import until


async def make(conn: asyncpg.Connection, days: int = 2, months: int = 1) -> dict[str, tuple[str, int]]:
    """Create missing partitions and return the outcome and moved rows of each."""
    rows = await conn.fetch("select * from ops.ensure_partitions($1, $2)", days, months)
    return {row["partition_name"]: (row["outcome"], row["rows_moved"]) for row in rows}


async def send(conn: asyncpg.Connection | Pool, *moments: datetime, device_id: str = "boiler-1") -> int:
    """Send a reading for each moment and return the number stored."""
    return int(
        await conn.fetchval(
            "select accepted from ingest.record_readings('acme', $1, $2, $3, $4, null)",
            [device_id] * len(moments),
            ["temperature"] * len(moments),
            list(moments),
            [20.0] * len(moments),
        )
    )


async def partition_of(conn: asyncpg.Connection, table: str = "telemetry") -> dict[str, int]:
    """Return the table's rows by partition."""
    rows = await conn.fetch(f"select tableoid::regclass::text as name, count(*) from {table} group by 1 order by 1")
    return {row["name"]: row["count"] for row in rows}


async def bounds(conn: asyncpg.Connection, parent: str) -> list[tuple[str, datetime, datetime]]:
    """Return name and bounds of each partition, in order."""
    rows = await conn.fetch(
        "select c.relname, b[1]::timestamptz as lower, b[2]::timestamptz as upper from pg_inherits i"
        " join pg_class c on c.oid = i.inhrelid cross join lateral regexp_match("
        "pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''(.+)''\\) TO \\(''(.+)''\\)') b"
        " where i.inhparent = $1::text::regclass and b is not null order by 1",
        f"public.{parent}",
    )
    return [(row["relname"], row["lower"], row["upper"]) for row in rows]


@pytest.mark.parametrize(("days", "months"), [(367, 1), (1, 25), (-1, 1), (1, -1)])
async def test_no_call_makes_partitions_without_end(conn: asyncpg.Connection, days: int, months: int) -> None:
    """Every insert waits for the transaction that creates partitions."""
    with pytest.raises(asyncpg.PostgresError) as refused:
        await make(conn, days, months)
    assert refused.value.sqlstate == "PU422"


async def test_a_fresh_database_gets_its_partitions(conn: asyncpg.Connection) -> None:
    """Days start 8 back, months at the previous one. A second call does nothing."""
    await stop_clock(conn, "2026-11-23 10:00Z")

    made = await make(conn, days=2, months=1)
    assert list(made) == [
        *(f"telemetry_202611{day}" for day in range(15, 26)),
        *("audit_log_202610", "audit_log_202611", "audit_log_202612"),
    ]
    assert {outcome for outcome, _ in made.values()} == {"created"}
    assert await make(conn, days=2, months=1) == {}
    assert list(await make(conn, days=3, months=1)) == ["telemetry_20261126"]


async def test_a_partition_belongs_to_the_owner_only(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """Made for pulse_app, it belongs to pulse_owner, has no grants, and is commented and indexed like its parent."""
    async with app_pool.acquire() as connection:
        made = await make(connection)

    rows = await conn.fetch(
        "select c.relname, c.relowner::regrole::text as owner, c.relacl, obj_description(c.oid) as comment,"
        " (select count(*) from pg_index x where x.indrelid = c.oid) as indexes,"
        " (select count(*) from pg_index x where x.indrelid = i.inhparent) as wanted,"
        " (select count(*) from pg_index x join pg_inherits t on t.inhrelid = x.indexrelid"
        " where x.indrelid = c.oid) as tied"
        " from pg_class c join pg_inherits i on i.inhrelid = c.oid where c.relname = any($1)",
        list(made),
    )
    assert len(rows) == len(made)
    for row in rows:
        assert (row["owner"], row["relacl"]) == ("pulse_owner", None)
        assert row["comment"].startswith("Rows of ")
        assert row["indexes"] == row["tied"] == row["wanted"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app_pool.execute(f"select from {next(iter(made))}")


async def test_each_partition_is_audited(
    conn: asyncpg.Connection, app_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker creates them in one trace, which is in each audit event."""
    worker = PartitionWorker(ahead_days=1, ahead_months=1)
    with caplog.at_level("INFO", logger="services.ops_worker"):
        assert await worker.make(app_pool) == 0

    rows = await conn.fetch("select * from audit_log where event_type = 'system.partition_created' order by event_id")
    assert len(rows) == 10 + 3 == len(caplog.records)
    assert {(row["tenant_id"], row["actor_id"], row["source_service"]) for row in rows} == {
        ("system", "ops_worker", "ops_worker")
    }
    assert len({row["trace_id"] for row in rows}) == 1
    assert rows[0]["trace_id"] is not None


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "America/St_Johns", "Europe/Berlin", "Asia/Kolkata"])
async def test_days_are_utc_whatever_the_session_says(conn: asyncpg.Connection, zone: str) -> None:
    """No time zone, date style (IST is also Israel's time) or daylight saving makes a gap or a 23-hour day."""
    await conn.execute(f"set timezone = '{zone}'")
    await conn.execute("set datestyle = 'German, DMY'")
    await stop_clock(conn, "2026-03-28 23:30Z")
    await make(conn, days=3, months=2)
    await conn.execute("set datestyle = 'ISO'")
    await conn.execute("set timezone = 'UTC'")

    days = await bounds(conn, "telemetry")
    assert [name for name, _, _ in days][0::11] == ["telemetry_20260320", "telemetry_20260331"]
    for name, lower, upper in days:
        assert lower == datetime.strptime(name, "telemetry_%Y%m%d").replace(tzinfo=UTC)
        assert upper - lower == timedelta(days=1)
    months = await bounds(conn, "audit_log")
    assert [name for name, _, _ in months] == [f"audit_log_20260{month}" for month in (2, 3, 4, 5)]
    assert [lower for _, lower, _ in months] == [datetime(2026, month, 1, tzinfo=UTC) for month in (2, 3, 4, 5)]
    assert [upper for _, _, upper in months[:-1]] == [lower for _, lower, _ in months[1:]]


async def test_a_leap_day_and_a_new_year(conn: asyncpg.Connection) -> None:
    await stop_clock(conn, "2027-12-31 23:59:59Z")
    made = await make(conn, days=1, months=2)
    assert "telemetry_20280101" in made
    assert [name for name in made if name.startswith("audit_log")] == [
        *("audit_log_202711", "audit_log_202712", "audit_log_202801", "audit_log_202802")
    ]
    await stop_clock(conn, "2028-02-28 12:00Z")
    assert {"telemetry_20280229", "telemetry_20280301"} <= (await make(conn, days=2)).keys()


async def test_rows_of_the_default_partition_move(conn: asyncpg.Connection) -> None:
    """Every row moves once, unchanged, to its partition. A day's bounds belong to the right one."""
    await seed.device(conn)
    day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    moments = [day - timedelta(microseconds=1), day, day + timedelta(hours=12), day + timedelta(days=1)]
    assert await send(conn, *moments) == 4
    before = await conn.fetch("select * from telemetry order by timestamp")

    made = await make(conn)
    names = [f"telemetry_{day + timedelta(days=offset):%Y%m%d}" for offset in (-1, 0, 1)]
    assert [made[name] for name in names] == [("created", 1), ("created", 2), ("created", 1)]
    assert await partition_of(conn) == dict(zip(names, (1, 2, 1), strict=True))
    assert await conn.fetch("select * from telemetry order by timestamp") == before
    assert await conn.fetchval("select count(*) from only telemetry_default") == 0


async def test_days_long_gone_get_their_partition_too(conn: asyncpg.Connection) -> None:
    """After weeks without new partitions, no row stays in the default partition."""
    await seed.device(conn)
    old = datetime.now(UTC) - timedelta(days=20)
    await send(conn, old)
    await conn.execute(
        "insert into audit_log (tenant_id, timestamp, event_id, event_type, category, action, message, source_service)"
        " values ('acme', $1, gen_random_uuid(), 'alert.opened', 'alert', 'opened', 'm', 't')",
        old - timedelta(days=70),
    )

    made = await make(conn)
    assert made[f"telemetry_{old:%Y%m%d}"] == ("created", 1)
    assert made[f"audit_log_{old - timedelta(days=70):%Y%m}"] == ("created", 1)
    assert await conn.fetchval("select count(*) from only audit_log_default") == 0


async def test_a_reading_sent_twice_stays_one_over_a_move(conn: asyncpg.Connection) -> None:
    """The key holds before, during and after the move, so a repeated reading is a duplicate."""
    await seed.device(conn)
    moment = datetime.now(UTC)
    assert await send(conn, moment) == 1
    await make(conn)
    assert await send(conn, moment) == 0
    assert sum((await partition_of(conn)).values()) == 1


async def test_the_audit_trail_moves_and_stays_append_only(conn: asyncpg.Connection) -> None:
    """Rows bypass the guard, which is restored afterwards and holds on the new partition."""
    await seed.device(conn)
    await send(conn, datetime.now(UTC))
    await conn.execute("alter table audit_log_default enable always trigger audit_log_append_only")
    before = await conn.fetch("select * from audit_log order by event_id")
    guards = "select tgname, tgenabled from pg_trigger where tgrelid = $1::text::regclass order by 1"
    modes = await conn.fetch(guards, "audit_log_default")

    made = await make(conn)
    name = f"audit_log_{datetime.now(UTC):%Y%m}"
    assert made[name][1] >= len(before) > 0
    after = await conn.fetch("select * from audit_log where event_type <> 'system.partition_created' order by event_id")
    assert after == before
    assert await conn.fetch(guards, "audit_log_default") == modes
    assert [row["tgname"] for row in await conn.fetch(guards, name)] == [row["tgname"] for row in modes]
    for table in ("audit_log", "audit_log_default", name):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await conn.execute(f"truncate {table}")
    for change in (f"delete from {name}", f"update {name} set message = ''", "delete from audit_log"):
        with pytest.raises(asyncpg.PostgresError, match="append-only"):
            await conn.execute(change)


async def test_two_copies_at_once_make_each_once(conn: asyncpg.Connection, connect: Connect) -> None:
    """The second copy waits for the first and finds nothing missing."""
    copies = [await connect() for _ in range(3)]
    made = await asyncio.gather(*(make(copy) for copy in copies))

    names = [name for one in made for name in one]
    assert len(names) == len(set(names)) == 11 + 3
    assert await make(conn) == {}


async def test_a_busy_table_is_left_to_the_next_pass(conn: asyncpg.Connection, connect: Connect) -> None:
    """An open writer blocks only its own table. Nothing is lost, and the next pass succeeds."""
    await seed.device(conn)
    writer = await connect()
    transaction = writer.transaction()
    await transaction.start()
    today = datetime.now(UTC)
    await writer.execute(
        "insert into telemetry (tenant_id, timestamp, device_id, metric, value)"
        " values ('acme', $1, 'boiler-1', 't', 1)",
        today,
    )

    made = await make(conn)
    assert {outcome for name, (outcome, _) in made.items() if name.startswith("telemetry")} == {"busy"}
    assert {outcome for name, (outcome, _) in made.items() if name.startswith("audit_log")} == {"created"}
    await transaction.commit()
    again = await make(conn)
    assert again[f"telemetry_{today:%Y%m%d}"] == ("created", 1)
    assert {outcome for outcome, _ in again.values()} == {"created"}


async def test_a_writer_that_waits_for_a_partition_lands_in_it(conn: asyncpg.Connection, connect: Connect) -> None:
    """A reading sent during the creation is stored, not refused by the default partition."""
    await seed.device(conn)
    writer = await connect()
    today = datetime.now(UTC)
    await send(writer, today - timedelta(seconds=1))  # the writer has cached its plans and partitions

    transaction = conn.transaction()
    await transaction.start()
    await make(conn)
    sending = asyncio.create_task(send(writer, today))
    await until(lambda: is_blocked(conn, writer))
    await transaction.commit()

    assert await sending == 1
    assert (await partition_of(conn)).keys() == {f"telemetry_{today:%Y%m%d}"}


async def test_writers_at_full_speed_lose_nothing(conn: asyncpg.Connection, app_pool: Pool) -> None:
    """Four writers send readings of three days and audit events while the partitions are created."""
    writers, stop, sent = 4, asyncio.Event(), 0
    for number in range(writers):
        await seed.device(conn, f"boiler-{number}")
    start = datetime.now(UTC)

    async def write(number: int) -> None:
        nonlocal sent
        moment = start
        while not stop.is_set():
            moment += timedelta(milliseconds=1)
            days = [moment - timedelta(days=offset) for offset in (0, 1, 2)]
            stored = await send(app_pool, *days, device_id=f"boiler-{number}")
            assert stored == 3
            sent += stored

    async with asyncio.TaskGroup() as tasks:
        for number in range(writers):
            tasks.create_task(write(number))
        await until(lambda: sent > 60)
        made: dict[str, int] = {}
        while missing := await make(conn):
            made |= {name: rows for name, (outcome, rows) in missing.items() if outcome == "created"}
        at_end = sent
        await until(lambda: sent > at_end + 60)
        stop.set()

    assert sum(rows for name, rows in made.items() if name.startswith("telemetry")) >= 60
    assert await conn.fetchval("select count(*) from telemetry") == sent
    assert await conn.fetchval("select count(*) from evaluator.inbox") == sent
    audited = await conn.fetchval("select count(*) from audit_log where event_type = 'device.readings_accepted'")
    assert audited == sent / 3
    assert await conn.fetchval("select count(*) from only telemetry_default") == 0
    assert await conn.fetchval("select count(*) from only audit_log_default") == 0
