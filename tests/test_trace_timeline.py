"""api.trace_timeline: the whole story of a trace id, of one tenant, by index."""

from datetime import timedelta

import asyncpg
import pytest

from services.shared import db
from tests import history
from tests.plans import rows_read

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
insert into public.alerts (tenant_id, fingerprint, rule_id, rule_name, device_id, severity, message, value, opened_at,
                           recorded_at, trace_id)
values ('acme', 'rule:1:boiler-1', 1, 'hot', 'boiler-1', 'critical', 'temperature is 95.5', 95.5, '2001-01-01',
        '{START}'::timestamptz + interval '20 ms', '{TRACE}');
insert into public.alert_events (tenant_id, alert_id, kind, occurred_at, recorded_at, value, trace_id)
values ('acme', 1, 'opened', '2001-01-01', '{START}'::timestamptz + interval '30 ms', 95.5, '{TRACE}');
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
values ('acme', '{START}'::timestamptz + interval '100 ms', gen_random_uuid(), 'delivery.delivered', 'delivery',
        'delivered', 'notification_job', '1', 'the receiver took it', '{{"attempt": 2}}', 'delivery_worker', 'service',
        'w2', '{TRACE}', 7.5),
       ('system', '{START}', gen_random_uuid(), 'auth.login_success', 'auth', 'login_success', null, null,
        'system only', '{{}}', 'ui_iot', null, null, '{TRACE}', null);
"""
STORY = f"select * from api.trace_timeline where trace_id = '{TRACE}' order by at"


async def test_the_whole_story_in_order(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """From the readings to the last attempt, by the database's clock, with who did what for how long."""
    await conn.execute(CHAIN)
    async with db.read_as(app_pool, tenant_id="acme") as reader:
        rows = await reader.fetch(STORY)
    told = [(row["source"], row["service"], row["entity_type"], row["entity_id"], row["what"]) for row in rows]
    assert told == [
        ("reading", "ui_iot", "device", "boiler-1", "2 readings of temperature from 95.5 to 97"),
        ("reading", "ui_iot", "device", "boiler-1", "humidity is 40"),
        ("alert", "evaluator_iot", "alert", "1", "temperature is 95.5"),
        ("alert_event", "evaluator_iot", "alert", "1", "alert opened"),
        ("job", "dispatcher", "notification_job", "1", "alert opened goes to webhook sink, now delivered"),
        ("suppression", "dispatcher", "alert", "1", "nobody told: channel_disabled"),
        ("attempt", "delivery_worker", "notification_job", "1", "attempt 1: retry (HTTP 503)"),
        ("attempt", "delivery_worker", "notification_job", "1", "attempt 2: delivered (HTTP 200)"),
        ("audit", "delivery_worker", "notification_job", "1", "the receiver took it"),
    ]
    milliseconds = [round((row["at"] - rows[0]["at"]) / timedelta(milliseconds=1)) for row in rows]
    assert milliseconds == [0, 2, 10, 20, 30, 40, 50, 80, 90]
    assert [row["duration_ms"] for row in rows] == [None, None, None, None, 50, None, 4.5, 7.5, 7.5]
    assert {(row["tenant_id"], row["trace_id"]) for row in rows} == {("acme", TRACE)}
    assert rows[0]["details"]["readings"] == 2
    assert rows[4]["details"]["channel"] == "sink"
    assert rows[8]["details"] == {
        "attempt": 2,
        "event_type": "delivery.delivered",
        "actor_type": "service",
        "actor_id": "w2",
    }
    assert "whsec" not in str([dict(row) for row in rows])


async def test_other_tenants_see_nothing(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """Neither another tenant nor a session without one; the system's rows belong to nobody but the system."""
    await conn.execute(CHAIN)
    async with db.read_as(app_pool, tenant_id="other") as reader:
        assert await reader.fetch(STORY) == []
    async with db.read_as(app_pool, tenant_id="system") as reader:
        assert [row["what"] for row in await reader.fetch(STORY)] == ["system only"]
    assert await app_pool.fetch(STORY) == []


async def test_a_condition_cannot_peek_at_other_tenants(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """A cheap function in the caller's condition is shown only rows that the caller may see."""
    await conn.execute(CHAIN)
    await conn.execute(
        """
        create function public.peek(p_text text) returns boolean language plpgsql immutable cost 0.000001 as
        $$ begin raise exception 'saw %', p_text; end $$;
        grant execute on function public.peek(text) to pulse_app
        """
    )
    async with db.read_as(app_pool, tenant_id="other") as reader:
        # Without an index that leads past the other tenants' rows.
        await reader.execute("set local enable_indexscan = off; set local enable_bitmapscan = off")
        assert await reader.fetch("select * from api.trace_timeline where public.peek(what)") == []
    async with db.read_as(app_pool, tenant_id="acme") as reader:
        with pytest.raises(asyncpg.RaiseError, match="saw"):
            await reader.fetch("select * from api.trace_timeline where public.peek(what)")


async def test_a_big_request_is_one_line(conn: asyncpg.Connection, app_pool: db.Pool) -> None:
    """10,000 readings of a device's metric are told in one row that counts them."""
    await conn.execute(
        f"""
        insert into public.tenants (tenant_id, name) values ('acme', 'Acme');
        insert into public.telemetry (tenant_id, timestamp, device_id, metric, value, trace_id)
        select 'acme', '{START}'::timestamptz + i * interval '1 ms', 'boiler-1', 'temperature', i, '{TRACE}'
        from generate_series(1, 10000) i
        """
    )
    async with db.read_as(app_pool, tenant_id="acme") as reader:
        (row,) = await reader.fetch(STORY)
    assert row["what"] == "10000 readings of temperature from 1 to 10000"


async def test_a_trace_is_found_by_index(conn: asyncpg.Connection) -> None:
    """Among 80,000 rows of other traces, the tenant's condition in place, each branch reads only the trace's rows."""
    await history.make_history(conn)
    async with conn.transaction():
        await conn.execute("set local pulse.tenant_id = 'acme'")
        query = "select * from api.trace_timeline where trace_id = md5('77')"
        found = await conn.fetch(f"select source, count(*) from ({query}) story group by source")
        read = await rows_read(conn, query)
        unbound = await rows_read(conn, f"{query} order by at limit 1000")
    assert dict(found) == {
        "reading": 10, "alert": 1, "alert_event": 1, "job": 1, "suppression": 1, "attempt": 1, "audit": 4,
    }  # fmt: skip
    assert {table: rows for table, rows in read.items() if rows > 10} == {}
    assert {table: rows for table, rows in unbound.items() if rows > 10} == {}
    # Every branch was really taken.
    assert {table for table, rows in read.items() if rows} >= {
        "alerts", "alert_events", "notification_jobs", "suppressions", "delivery_attempts",
    }  # fmt: skip
