"""api.trace_timeline: all rows of a trace id as a tree, for one tenant, by index."""

import asyncio
import hashlib
from collections import Counter
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from services.shared import db
from tests.support import seed
from tests.support.trail import trace_id_of
from tests.support.wait import until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
START = "2026-01-05 12:00:00+00"

# One chain from two readings to a second attempt, a row each 10 ms; device clocks that are wrong by years.
CHAIN = f"""
insert into public.tenants (tenant_id, name) values ('acme', 'Acme');
insert into public.devices (tenant_id, device_id, name) values ('acme', 'boiler-1', 'Boiler');
insert into public.telemetry (tenant_id, timestamp, device_id, metric, value, received_at, trace_id)
values ('acme', '2001-01-01', 'boiler-1', 'temperature', 95.5, '{START}'::timestamptz + interval '10 ms', '{TRACE}'),
       ('acme', '2001-01-02', 'boiler-1', 'temperature', 97, '{START}'::timestamptz + interval '11 ms', '{TRACE}'),
       ('acme', '2001-01-02', 'boiler-1', 'humidity', 40, '{START}'::timestamptz + interval '12 ms', '{TRACE}'),
       ('acme', '2001-01-03', 'boiler-1', 'temperature', 99, '{START}', md5('another'));
insert into public.alert_rules (tenant_id, name, metric, operator, threshold)
values ('acme', 'hot', 'temperature', '>', 90);
insert into public.alerts (tenant_id, fingerprint, rule_id, rule_name, device_id, metric, severity, message, value,
                           opened_at, recorded_at, trace_id)
values ('acme', 'rule:1:boiler-1', 1, 'hot', 'boiler-1', 'temperature', 'critical', 'temperature is 95.5', 95.5,
        '2001-01-01', '{START}'::timestamptz + interval '20 ms', '{TRACE}');
insert into public.alert_events (tenant_id, alert_id, kind, occurred_at, decided_at, recorded_at, value, trace_id)
values ('acme', 1, 'opened', '2001-01-01', '{START}'::timestamptz + interval '18 ms',
        '{START}'::timestamptz + interval '30 ms', 95.5, '{TRACE}');
insert into public.notification_channels (tenant_id, name, kind, config)
values ('acme', 'sink', 'webhook', '{{"secret": "whsec_x"}}'), ('acme', 'muted', 'slack', '{{}}');
insert into public.notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, state, payload, run_at,
                                      created_at, finished_at, attempts, trace_id)
values ('acme', 1, 1, 1, 'opened', 'delivered', '{{}}', '{START}', '{START}'::timestamptz + interval '40 ms',
        '{START}'::timestamptz + interval '90 ms', 2, '{TRACE}');
insert into public.suppressions (tenant_id, event_id, alert_id, channel_id, reason, recorded_at, trace_id)
values ('acme', 1, 1, 2, 'channel_disabled', '{START}'::timestamptz + interval '50 ms', '{TRACE}');
insert into public.delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome, status_code,
                                      started_at, finished_at, duration_ms, trace_id)
values ('acme', 1, 1, 1, 1, 'w1', 'retry', 503, '{START}'::timestamptz + interval '60 ms', '{START}', 4.5, '{TRACE}'),
       ('acme', 1, 1, 2, 2, 'w2', 'delivered', 200, null, '{START}'::timestamptz + interval '90 ms', 7.5, '{TRACE}');
insert into public.audit_log (tenant_id, timestamp, event_id, event_type, category, action, entity_type, entity_id,
                              message, details, source_service, actor_type, actor_id, trace_id, duration_ms)
values ('acme', '{START}'::timestamptz + interval '9 ms', gen_random_uuid(), 'device.authenticated', 'device',
        'authenticated', 'device', 'boiler-1', 'device let in',
        '{{"method": "POST", "path": "/ingest/v1/readings", "span_id": "00f067aa0ba902b7"}}', 'ui_iot', 'device',
        'boiler-1', '{TRACE}', 4),
       ('acme', '{START}'::timestamptz + interval '100 ms', gen_random_uuid(), 'delivery.delivered', 'delivery',
        'delivered', 'job', '1', 'the receiver took it', '{{"attempt": 2, "event_id": 1}}', 'delivery_worker',
        'service', 'w2', '{TRACE}', 7.5),
       ('acme', '{START}'::timestamptz + interval '101 ms', gen_random_uuid(), 'config.rule_updated', 'config',
        'rule_updated', 'rule', '1', 'rule changed', '{{"event_id": "no such"}}', 'sql', 'user', 'alice',
        '{TRACE}', null),
       ('system', '{START}', gen_random_uuid(), 'auth.login_success', 'auth', 'login_success', null, null,
        'system only', '{{}}', 'ui_iot', null, null, '{TRACE}', null);
"""
STORY = f"select * from api.trace_timeline('{TRACE}')"


def tree(rows: list[asyncpg.Record]) -> dict[str, str | None]:
    """Return the text of each row and of its parent. Fail unless the tree is closed."""
    what = {row["span_id"]: row["what"] for row in rows}
    assert len(what) == len(rows)
    return {row["what"]: row["parent_span_id"] and what[row["parent_span_id"]] for row in rows}


async def test_the_whole_story_in_order_and_as_a_tree(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """From the request to the last attempt by the database's clock, with actor, act, duration and reason."""
    await conn.execute(CHAIN)
    async with db.read_as(app_pool, tenant_id="acme") as reader:
        rows = await reader.fetch(STORY)
    steps = [(row["kind"], row["service"], row["entity_type"], row["entity_id"], row["what"]) for row in rows]
    assert steps == [
        ("request", "ui_iot", "device", "boiler-1", "POST /ingest/v1/readings"),
        ("reading", "ui_iot", "device", "boiler-1", "2 readings of temperature from 95.5 to 97"),
        ("reading", "ui_iot", "device", "boiler-1", "humidity is 40"),
        ("evaluation", "evaluator_iot", "device", "boiler-1", "temperature evaluated: 1 opened"),
        ("alert", "evaluator_iot", "alert", "1", "temperature is 95.5"),
        ("event", "evaluator_iot", "alert", "1", "alert opened"),
        ("job", "dispatcher", "notification_job", "1", "alert opened goes to webhook sink, now delivered"),
        ("suppression", "dispatcher", "alert", "1", "channel 2 not notified: channel_disabled"),
        ("attempt", "delivery_worker", "notification_job", "1", "attempt 1: retry (HTTP 503)"),
        ("attempt", "delivery_worker", "notification_job", "1", "attempt 2: delivered (HTTP 200)"),
        ("audit", "delivery_worker", "job", "1", "the receiver took it"),
        ("audit", "sql", "rule", "1", "rule changed"),
    ]
    assert tree(rows) == {
        "POST /ingest/v1/readings": None,
        "2 readings of temperature from 95.5 to 97": "POST /ingest/v1/readings",
        "humidity is 40": "POST /ingest/v1/readings",
        "temperature evaluated: 1 opened": "2 readings of temperature from 95.5 to 97",
        "temperature is 95.5": "temperature evaluated: 1 opened",
        "alert opened": "temperature is 95.5",
        "alert opened goes to webhook sink, now delivered": "alert opened",
        "channel 2 not notified: channel_disabled": "alert opened",
        "attempt 1: retry (HTTP 503)": "alert opened goes to webhook sink, now delivered",
        "attempt 2: delivered (HTTP 200)": "alert opened goes to webhook sink, now delivered",
        "the receiver took it": "attempt 2: delivered (HTTP 200)",
        "rule changed": "POST /ingest/v1/readings",
    }
    milliseconds = [round((row["at"] - rows[0]["at"]) / timedelta(milliseconds=1)) for row in rows]
    assert milliseconds == [0, 5, 7, 13, 15, 25, 35, 45, 55, 85, 95, 96]
    assert [row["duration_ms"] for row in rows] == [4, None, None, 12, None, None, 50, None, 4.5, 7.5, None, None]
    assert rows[0]["span_id"] == "00f067aa0ba902b7"
    assert rows[9]["span_id"] == hashlib.sha256(f"{TRACE}:attempt:1:2".encode()).hexdigest()[:16]
    assert rows[1]["details"]["readings"] == 2
    assert rows[6]["details"]["channel"] == "sink"
    assert (rows[10]["details"]["event_type"], rows[10]["details"]["actor_id"]) == ("delivery.delivered", "w2")
    assert "whsec" not in str([dict(row) for row in rows])


async def test_other_tenants_see_nothing(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """Neither another tenant nor a session without one sees rows, even by its own function; an auditor sees all."""
    await conn.execute(CHAIN)
    await conn.execute(
        """
        create function public.peek(p_text text) returns boolean language plpgsql immutable cost 0.000001 as
        $$ begin raise exception 'saw %', p_text; end $$;
        grant execute on function public.peek(text) to pulse_app
        """
    )
    async with db.read_as(app_pool, tenant_id="other") as reader:
        assert await reader.fetch(STORY) == []
        assert await reader.fetch(f"{STORY} where public.peek(what)") == []
    async with db.read_as(app_pool, tenant_id="acme") as reader:
        with pytest.raises(asyncpg.RaiseError, match="saw"):
            await reader.fetch(f"{STORY} where public.peek(what)")
    async with db.read_as(app_pool, tenant_id="system") as reader:
        assert [row["what"] for row in await reader.fetch(STORY)] == ["system only"]
    assert await app_pool.fetch(STORY) == []
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app_pool.fetch(f"select * from audit.trace('{TRACE}')")
    await conn.execute("set role pulse_auditor")
    tenants = Counter(row["tenant_id"] for row in await conn.fetch(f"select * from audit.trace('{TRACE}')"))
    assert tenants == {"acme": 12, "system": 1}


async def test_a_big_request_is_one_line(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """10,000 readings of a device's metric share one row that counts them."""
    await seed.tenant(conn)
    await conn.execute(
        f"""
        insert into public.telemetry (tenant_id, timestamp, device_id, metric, value, trace_id)
        select 'acme', '{START}'::timestamptz + i * interval '1 ms', 'boiler-1', 'temperature', i, '{TRACE}'
        from generate_series(1, 10000) i
        """
    )
    async with db.read_as(app_pool, tenant_id="acme") as reader:
        (row,) = await reader.fetch(STORY)
    assert row["what"] == "10000 readings of temperature from 1 to 10000"


# Months of events and days of readings, a hundred or more each; ensure_partitions makes their partitions.
PAST = """
insert into public.tenants (tenant_id, name) values ('acme', 'Acme');
insert into public.telemetry (tenant_id, timestamp, device_id, metric, value, trace_id)
select 'acme', now() - i * interval '15 minutes', 'boiler-9', 'temperature', 1, md5(i::text)
from generate_series(1, 2880) i;
insert into public.audit_log
  (tenant_id, timestamp, event_id, event_type, category, action, message, source_service, trace_id)
select 'acme', now() - i * interval '3 hours', gen_random_uuid(), 'delivery.delivered', 'delivery', 'delivered', 'm',
       's', md5(i::text)
from generate_series(1, 3200) i;
select ops.ensure_partitions();
analyze;
"""


async def scans(conn: asyncpg.Connection, trace_id: str) -> tuple[set[str], int]:
    """Return the partitions that the timeline opened and the most rows it fetched from a table; fail at a full scan."""
    query = (
        "select relname, seq_scan, idx_scan, idx_tup_fetch + seq_tup_read as rows from pg_stat_xact_user_tables"
        " where schemaname = 'public' and relname <> 'tenants'"
    )
    async with conn.transaction():
        await conn.execute("set local pulse.tenant_id = 'acme'")
        before = {row["relname"]: row for row in await conn.fetch(query)}
        assert await conn.fetch("select * from api.trace_timeline($1)", trace_id)
        after = {row["relname"]: row for row in await conn.fetch(query)}

    def more(name: str, counter: str) -> int:
        return int((after[name][counter] or 0) - (before[name][counter] or 0 if name in before else 0))

    assert [name for name in after if more(name, "seq_scan")] == []
    opened = {name for name in after if name.startswith(("telemetry_", "audit_log_")) and more(name, "idx_scan")}
    return opened, max(more(name, "rows") for name in after)


async def test_a_trace_opens_only_the_partitions_of_its_time(conn: asyncpg.Connection) -> None:
    """By index, without fetching another trace's rows, for any layout of the id."""
    await conn.execute(PAST)
    now = datetime.now(UTC)
    own, foreign = trace_id_of(now), "4bf92f3577b34da6a3ce929d0e0e4736"
    await seed.rule(conn)
    await seed.route(conn, await seed.channel(conn))
    measured = {own: now - timedelta(days=3), foreign: now - timedelta(days=5)}
    for trace_id, at in measured.items():
        await seed.device(conn, trace_id)
        sent = "select ingest.record_readings('acme', array[$1], '{temperature}', array[$2::timestamptz], '{95}', $1)"
        await conn.execute(sent, trace_id, at)
    await conn.execute("select evaluator.evaluate(100)")
    await conn.execute("select dispatcher.dispatch(100)")
    months = {row[0] for row in await conn.fetch("select relname from pg_class where relname ~ '^audit_log_[0-9]+$'")}
    days = await conn.fetchval("select count(*) from pg_class where relname ~ '^telemetry_[0-9]+$'")
    assert (len(months) >= 15, days >= 38) == (True, True)
    first_month = f"audit_log_{now - timedelta(minutes=10):%Y%m}"
    for _ in range(2):  # as it is planned, and from the plan that is kept
        opened, rows = await scans(conn, own)
        assert opened - {"audit_log_default"} == {f"telemetry_{measured[own]:%Y%m%d}"} | {
            month for month in months if month >= first_month
        }
        assert rows <= 3
        opened, rows = await scans(conn, foreign)
        assert opened - {"audit_log_default"} == {f"telemetry_{measured[foreign]:%Y%m%d}"} | months
        assert rows <= 3


async def test_rows_that_move_to_a_late_partition_are_never_missed(conn: asyncpg.Connection, database_url: str) -> None:
    """Before, during and after the move; clocks of devices may be months behind."""
    await seed.device(conn)
    trace_id = trace_id_of(datetime.now(UTC))
    await seed.readings(conn, (0, 95), (60, 96), trace_id=trace_id)  # months ago, on a day without a partition
    await conn.execute("set pulse.tenant_id = 'acme'")
    query = "select kind, what from api.trace_timeline($1)"
    expected = {("audit", "2 readings accepted"), ("reading", "2 readings of temperature from 95 to 96")}

    async def timeline() -> set[tuple[str, str]]:
        return {tuple(row) for row in await conn.fetch(query, trace_id)}

    assert await timeline() == expected
    mover = await asyncpg.connect(database_url)
    try:
        async with mover.transaction():
            moved = await mover.fetch("select * from ops.ensure_partitions() where rows_moved > 0")
            assert len([row for row in moved if row["partition_name"] == "telemetry_20260105"]) == 1
            waiting = asyncio.create_task(timeline())
            pid = conn.get_server_pid()
            blocked = "select wait_event_type = 'Lock' from pg_stat_activity where pid = $1"
            await until(lambda: mover.fetchval(blocked, pid), seconds=10)
        assert await waiting == expected
    finally:
        await mover.close()
    assert await timeline() == expected
