"""Expired rows are removed in bounded steps, unless another row still needs them."""

import asyncio

import asyncpg
import pytest

from services.ops_worker.workers.retention_worker import RetentionWorker
from services.shared.db import Pool
from tests.support import seed
from tests.support.clock import stop_clock
from tests.support.connections import Connect, is_blocked
from tests.support.wait import until

RETAINED = ("alerts", "alert_events", "notification_jobs", "delivery_attempts", "suppressions")


async def prune(
    conn: asyncpg.Connection, *, telemetry: int = 30, alerts: int = 365, metrics: int = 30, limit: int = 1000
) -> dict[str, int]:
    """Run one pass and return the removed rows by table."""
    rows = await conn.fetch("select what, removed from ops.prune_telemetry($1, $2)", telemetry, limit)
    rows += await conn.fetch("select what, removed from ops.prune($1, $2, $3)", alerts, metrics, limit)
    return {row["what"]: row["removed"] for row in rows}


async def partitions(conn: asyncpg.Connection) -> list[str]:
    """Return the names of the daily partitions."""
    rows = await conn.fetch(
        "select relname from pg_class c join pg_inherits i on i.inhrelid = c.oid"
        " where i.inhparent = 'telemetry'::regclass and relname <> 'telemetry_default' order by 1"
    )
    return [row["relname"] for row in rows]


async def alert(
    conn: asyncpg.Connection,
    name: str,
    *,
    closed_days_ago: float | None = 400,
    job: str | None = "delivered",
    dispatched: bool = True,
) -> int:
    """Create an alert with event, job (None: no job), attempt and suppression. Return its id."""
    await seed.tenant(conn)
    alert_id = int(
        await conn.fetchval(
            "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at, status, closed_at,"
            " close_reason) select 'acme', $1, $1, 'info', 'm', now() - interval '500 days',"
            " case when days is null then 'open' else 'closed' end, now() - days * interval '1 day',"
            " case when days is not null then 'resolved' end from (select $2::float8) ago (days) returning alert_id",
            name,
            closed_days_ago,
        )
    )
    event_id = await conn.fetchval(
        "insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at)"
        " values ('acme', $1, 'opened', now(), case when $2 then now() end) returning event_id",
        alert_id,
        dispatched,
    )
    if job is not None:
        await conn.execute(
            "with job as (insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, state,"
            " payload, finished_at, lease_until, leased_by) values ('acme', $1, $2, 1, 'opened', $3, '{}',"
            " case when $3 in ('delivered', 'dead') then now() end, case when $3 = 'leased' then now() end,"
            " case when $3 = 'leased' then 'w' end) returning *)"
            " insert into delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome)"
            " select tenant_id, job_id, 1, 1, 1, 'w', 'delivered' from job",
            event_id,
            alert_id,
            job,
        )
    await conn.execute(
        "insert into suppressions (tenant_id, event_id, alert_id, reason) values ('acme', $1, $2, 'no_route')",
        event_id,
        alert_id,
    )
    return alert_id


async def any_session_waits(conn: asyncpg.Connection) -> bool:
    """Return whether a connection to the clone waits for a lock."""
    query = (
        "select exists (select from pg_stat_activity"
        " where datname = current_database() and cardinality(pg_blocking_pids(pid)) > 0)"
    )
    return bool(await conn.fetchval(query))


async def names(conn: asyncpg.Connection) -> list[str]:
    """Return the names of the remaining alerts."""
    return [row["rule_name"] for row in await conn.fetch("select rule_name from alerts order by 1")]


async def test_whole_days_of_readings_go(conn: asyncpg.Connection) -> None:
    """A day is dropped once its last moment is too old. Old readings without a partition are removed."""
    await stop_clock(conn, "2026-10-01 12:00Z")
    await conn.execute("select ops.ensure_partitions(1, 1)")
    await conn.execute(
        "insert into telemetry (tenant_id, timestamp, device_id, metric, value)"
        " select 'acme', '2026-09-20 00:00Z'::timestamptz + n * interval '1 hour', 'boiler-1', 't', n"
        " from generate_series(0, 263) n"
    )
    assert (await partitions(conn))[0] == "telemetry_20260923"
    await stop_clock(conn, "2026-10-05 00:00Z")

    # Ten days back is the first moment of September 25.
    assert await prune(conn, telemetry=10, limit=50) == {"telemetry_partitions": 1, "telemetry": 50}
    assert (await partitions(conn))[0] == "telemetry_20260924"
    assert await prune(conn, telemetry=10, limit=50) == {"telemetry_partitions": 1, "telemetry": 22}
    assert await prune(conn, telemetry=10, limit=50) == {}
    assert (await partitions(conn))[0] == "telemetry_20260925"
    assert await conn.fetchval("select min(timestamp) = '2026-09-25 00:00Z' from telemetry")
    assert await conn.fetchval("select count(*) from telemetry") == 144


async def test_partitions_are_not_made_and_dropped_in_turn(conn: asyncpg.Connection) -> None:
    """The shortest retention keeps every day that is created for late readings. A shorter one is refused."""
    await conn.execute("select ops.ensure_partitions(1, 1)")

    assert await prune(conn, telemetry=9) == {}
    with pytest.raises(asyncpg.PostgresError, match="at least 9 days") as refused:
        await prune(conn, telemetry=8)
    assert refused.value.sqlstate == "PU422"
    for zero in ({"alerts": 0}, {"metrics": 0}):
        with pytest.raises(asyncpg.PostgresError, match="at least 1 day"):
            await prune(conn, **zero)


async def test_a_query_over_all_readings_only_delays(conn: asyncpg.Connection, connect: Connect) -> None:
    """While a query reads telemetry, its partitions stay and all other expired rows are still removed."""
    await conn.execute("select ops.ensure_partitions(1, 1)")
    await alert(conn, "old")
    reader = await connect()
    transaction = reader.transaction()
    await transaction.start()
    await reader.fetch("select * from telemetry")
    await stop_clock(conn, "2040-01-01 00:00Z")

    assert "telemetry_partitions" not in (removed := await prune(conn))
    assert removed["alerts"] == 1
    await transaction.commit()
    assert [await prune(conn) for _ in range(11)] == [{"telemetry_partitions": 1}] * 10 + [{}]


async def test_settled_alerts_go_with_all_that_hangs_on_them(conn: asyncpg.Connection) -> None:
    """Only old alerts that are closed, dispatched and delivered or dead are removed."""
    for name, state in (("delivered", "delivered"), ("dead", "dead"), ("untold", None)):
        await alert(conn, name, job=state)
    await alert(conn, "keep: still open", closed_days_ago=None)
    await alert(conn, "keep: closed lately", closed_days_ago=364)
    await alert(conn, "keep: to be sent", job="pending")
    await alert(conn, "keep: being sent", job="leased")
    await alert(conn, "keep: not dispatched", job=None, dispatched=False)

    assert await prune(conn) == {
        "alerts": 3,
        "alert_events": 3,
        "notification_jobs": 2,
        "delivery_attempts": 2,
        "suppressions": 3,
    }
    assert len(left := await names(conn)) == 5
    assert all(name.startswith("keep: ") for name in left)
    assert await conn.fetchval("select count(*) from suppressions") == 5
    assert await prune(conn) == {}


async def test_alerts_that_have_to_stay_hold_up_no_other(conn: asyncpg.Connection) -> None:
    """If the oldest alerts still have pending notifications, a small pass removes those behind them."""
    for number in range(3):
        await alert(conn, f"keep {number}", closed_days_ago=500, job="pending")
    await alert(conn, "old")

    assert (await prune(conn, limit=2))["alerts"] == 1
    assert await names(conn) == ["keep 0", "keep 1", "keep 2"]


async def test_a_pass_is_bounded_and_the_worker_drains(
    conn: asyncpg.Connection, app_pool: Pool, caplog: pytest.LogCaptureFixture
) -> None:
    """The oldest rows go first, at most a batch per pass, until a pass finds none. Each pass is audited."""
    for number in range(5):
        await alert(conn, f"old {number}", closed_days_ago=400 + number)
    worker = RetentionWorker(telemetry_days=30, alert_days=365, service_metrics_days=30, batch=2)

    with caplog.at_level("INFO", logger="services.ops_worker"):
        assert await worker.prune(app_pool) == 10  # two alerts with an event, a job, an attempt and a suppression each
        assert await names(conn) == ["old 0", "old 1", "old 2"]
        assert [await worker.prune(app_pool) for _ in range(3)] == [10, 5, 0]
    assert len(caplog.records) == 3
    audited = await conn.fetch(
        "select details->'removed'->>'alerts' as alerts, trace_id from audit_log"
        " where event_type = 'system.pruned' order by timestamp"
    )
    assert [row["alerts"] for row in audited] == ["2", "2", "1"]
    assert None not in {row["trace_id"] for row in audited}


async def test_a_notification_being_redriven_is_kept(conn: asyncpg.Connection, connect: Connect) -> None:
    """If a dead notification is redriven while the pass runs, the pass waits and keeps the alert."""
    await alert(conn, "redriven", job="dead")
    await alert(conn, "old")
    person = await connect()
    transaction = person.transaction()
    await transaction.start()
    await person.execute("update notification_jobs set state = 'pending', finished_at = null where state = 'dead'")

    await conn.execute("alter function ops.prune(integer, integer, integer) set lock_timeout = '20s'")
    pruning = asyncio.create_task(prune(conn))
    await until(lambda: is_blocked(person, conn))
    await transaction.commit()
    assert (await pruning)["alerts"] == 1
    assert await names(conn) == ["redriven"]


async def test_a_pass_that_waits_too_long_gives_up(conn: asyncpg.Connection, app_pool: Pool, connect: Connect) -> None:
    """The worker logs it and retries at the next time. No partial removal remains."""
    await alert(conn, "held", job="dead")
    person = await connect()
    async with person.transaction():
        await person.execute("select from notification_jobs for update")
        worker = RetentionWorker(telemetry_days=30, alert_days=365, service_metrics_days=30, batch=10)
        assert await worker.prune(app_pool) == 0
    assert await conn.fetchval("select count(*) from delivery_attempts") == 1
    assert await worker.prune(app_pool) == 5


async def test_ingest_goes_on_beside_a_long_pass(conn: asyncpg.Connection, app_pool: Pool, connect: Connect) -> None:
    """The drop of a partition commits and releases its lock before the slower steps."""
    await conn.execute("select ops.ensure_partitions(1, 1)")
    await conn.execute(
        "create table telemetry_20260101 partition of telemetry for values from ('2026-01-01Z') to ('2026-01-02Z');"
        "alter table telemetry_20260101 owner to pulse_owner"
    )
    await seed.device(conn)
    await alert(conn, "old", job="dead")
    await conn.execute("alter function ops.prune(integer, integer, integer) set lock_timeout = '20s'")
    worker = RetentionWorker(telemetry_days=30, alert_days=365, service_metrics_days=30, batch=9)
    person = await connect()
    transaction = person.transaction()
    await transaction.start()
    await person.execute("select from notification_jobs for update")

    pruning = asyncio.create_task(worker.prune(app_pool))
    await until(lambda: any_session_waits(conn))
    await conn.execute("set lock_timeout = '1s'")
    assert await seed.readings(conn, (0, 20.0)) == (1, 0, [])
    assert await any_session_waits(conn)
    await transaction.commit()
    assert await pruning == 6  # the partition, the alert, its event, job, attempt and suppression
    assert "telemetry_20260101" not in await partitions(conn)


async def test_old_samples_go_and_the_audit_trail_stays(conn: asyncpg.Connection) -> None:
    """Samples are removed oldest first in bounded steps. No audit event is removed."""
    await conn.execute(
        "insert into service_metrics (recorded_at, service, name, value)"
        " select now() - n * interval '1 day', 'dispatcher', 'rows', n from generate_series(1, 35) n"
    )
    await conn.execute(
        "insert into audit_log (timestamp, event_id, event_type, category, action, message, source_service)"
        " values (now() - interval '9 years', gen_random_uuid(), 'alert.opened', 'alert', 'opened', 'm', 't')"
    )
    removed = [await prune(conn, metrics=30, limit=4) for _ in range(3)]
    assert removed == [{"service_metrics": 4}, {"service_metrics": 2}, {}]
    assert await conn.fetchval("select max(value) from service_metrics") == 29
    assert await conn.fetchval("select count(*) from audit_log where timestamp < now() - interval '8 years'") == 1


async def test_the_cost_follows_what_is_old(conn: asyncpg.Connection, connect: Connect) -> None:
    """Among 20,000 closed alerts, a pass reads little more than the old ones, by their index."""
    await alert(conn, "old")
    await conn.execute(
        "insert into alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at, status, closed_at,"
        " close_reason)"
        " select 'acme', 'f' || n, 'r', 'info', 'm', now() - interval '30 days', 'closed',"
        "  now() - n * interval '1 minute', 'resolved' from generate_series(1, 20000) n"
    )
    for table in RETAINED:
        await conn.execute(f"vacuum analyze {table}")

    fresh = await connect()  # its counters start at zero
    async with fresh.transaction():
        assert (await prune(fresh))["alerts"] == 1
        read = await fresh.fetchrow(
            "select seq_tup_read as scanned, idx_tup_fetch as fetched from pg_stat_xact_all_tables"
            " where relname = 'alerts'"
        )
    assert (read["scanned"], read["fetched"] < 20) == (0, True)


@pytest.mark.parametrize("analyzed", ["empty", "full"])
async def test_the_cost_follows_the_batch(conn: asyncpg.Connection, connect: Connect, analyzed: str) -> None:
    """With 200,000 younger events, a pass over 50 alerts touches a few rows each, for any statistics."""
    if analyzed == "empty":
        for table in RETAINED:
            await conn.execute(f"vacuum analyze {table}")
    for number in range(60):
        await alert(conn, f"old {number}", closed_days_ago=400 + number)
    young = await alert(conn, "young", closed_days_ago=1)
    # The following rows refer to existing ones, so the checks are skipped.
    await conn.execute("set session_replication_role = replica")
    await conn.execute(
        "with event as (insert into alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at)"
        " select 'acme', $1, 'opened', now(), now() from generate_series(1, 200000) returning event_id),"
        " job as (insert into notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, state, payload,"
        " finished_at) select 'acme', event_id, $1, 1, 'opened', 'delivered', '{}', now() from event limit 20000"
        " returning job_id),"
        " attempt as (insert into delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker,"
        " outcome) select 'acme', job_id, 1, 1, 1, 'w', 'delivered' from job)"
        " insert into suppressions (tenant_id, event_id, alert_id, reason)"
        " select 'acme', event_id, $1, 'no_route' from event",
        young,
    )
    await conn.execute("reset session_replication_role")
    if analyzed == "full":
        for table in RETAINED:
            await conn.execute(f"vacuum analyze {table}")

    fresh = await connect()  # its counters start at zero
    async with fresh.transaction():
        assert (await prune(fresh, limit=50))["alerts"] == 50
        touched = await fresh.fetch(
            "select relname, coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) as rows"
            " from pg_stat_xact_all_tables where relname = any($1)",
            list(RETAINED),
        )
    assert {row["relname"]: row["rows"] for row in touched if row["rows"] > 20 * 50} == {}
