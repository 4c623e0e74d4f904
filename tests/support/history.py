"""A database with a long history: many finished rows in all growing tables, and a backlog in each queue."""

import os

import asyncpg

DEVICES = 200
# The plans read a bounded amount at any size, so the default is small. A large history is optional.
PAST = int(os.environ.get("PULSE_TEST_HISTORY_ROWS", "80000")) // 8
"""Rows of each kind that are over and done with."""
BACKLOG = PAST // 10
"""Rows of each kind that wait, and of each that happened just now."""

# Foreign keys are off meanwhile: their checks are not under test.
_STATEMENTS = f"""
select ops.ensure_partitions();
set session_replication_role = replica;
insert into public.tenants (tenant_id, name) values ('acme', 'Acme'), ('other', 'Other');
insert into public.devices (tenant_id, device_id, name)
select 'acme', 'device-' || i, 'Device' from generate_series(1, {DEVICES}) i;
insert into public.device_state (tenant_id, device_id, metric, timestamp, value, received_at)
select 'acme', 'device-' || i, m, now(), 1, now()
from generate_series(1, {DEVICES}) i, unnest(array['temperature', 'humidity']) m;
insert into public.telemetry (tenant_id, timestamp, device_id, metric, value, trace_id, received_at)
select 'acme', now() - interval '1 day' - i * interval '5 seconds', 'device-' || i % {DEVICES}, 'temperature', 1,
       md5((i / 10)::text), now() - interval '1 day'
from generate_series(1, {PAST}) i;
insert into public.alert_rules (tenant_id, name, metric, operator, threshold)
values ('acme', 'hot', 'temperature', '>', 1);
insert into public.alerts
  (tenant_id, fingerprint, rule_id, rule_name, severity, status, message, opened_at, closed_at, close_reason, trace_id)
select 'acme', 'rule:1:' || i, 1, 'hot', 'warning', 'closed', 'hot', now(), now(), 'resolved', md5(i::text)
from generate_series(1, {PAST}) i;
insert into public.alert_events (tenant_id, alert_id, kind, occurred_at, dispatched_at, trace_id)
select 'acme', i, 'opened', now(), now(), md5(i::text) from generate_series(1, {PAST}) i;
insert into public.notification_channels (tenant_id, name, kind, config) values ('acme', 'sink', 'webhook', '{{}}');
insert into public.notification_jobs
  (tenant_id, event_id, alert_id, channel_id, kind, state, payload, run_at, finished_at, trace_id)
select 'acme', i, i, 1, 'opened', 'delivered', '{{}}', now(), now(), md5(i::text) from generate_series(1, {PAST}) i;
insert into public.delivery_attempts
  (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome, started_at, finished_at, trace_id)
select 'acme', i, 1, 1, 1, 'w', 'delivered', now() - interval '30 days', now() - interval '30 days', md5(i::text)
from generate_series(1, {PAST}) i;
insert into public.suppressions (tenant_id, event_id, alert_id, reason, trace_id)
select 'acme', i, i, 'no_route', md5(i::text) from generate_series(1, {PAST}) i;
insert into public.audit_log
  (tenant_id, timestamp, event_id, event_type, category, action, message, source_service, trace_id)
select 'acme', now() - interval '2 hours' - i * interval '10 seconds', gen_random_uuid(), 'alert.opened', 'alert',
       'opened', 'hot', 'evaluator_iot', md5((i / 4)::text)
from generate_series(1, 2 * {PAST}) i;
reset session_replication_role;
analyze;
"""

# Every queue, open alerts, attempts and refusals. The statistics do not include them, as after a sudden rush.
_BACKLOG = f"""
set session_replication_role = replica;
insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value)
select i % 16, i, 'acme', 'd', 'm', now(), 1 from generate_series(1, {BACKLOG}) i;
insert into public.rule_state (tenant_id, rule_id, device_id, shard, since, firing, last_timestamp, last_value, due_at)
select 'acme', 1, 'd' || i, i % 16, now(), false, now(), 1, now() from generate_series(1, {BACKLOG}) i;
insert into public.alerts (tenant_id, fingerprint, rule_name, severity, message, opened_at)
select 'acme', 'x' || i, 'hot', 'warning', '', now() from generate_series(1, {BACKLOG}) i;
insert into public.alert_events (tenant_id, alert_id, kind, occurred_at)
select 'acme', i, 'opened', now() from generate_series(1, {BACKLOG}) i;
insert into public.notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload)
select 'acme', 100000000 + i, i, i % 100, 'opened', '{{}}' from generate_series(1, {BACKLOG}) i;
insert into public.delivery_attempts (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome)
select 'acme', -i, 1, 1, 1, 'w', 'retry' from generate_series(1, {BACKLOG}) i;
insert into ops.escalations (tenant_id, alert_id, policy_id, step_number, due_at)
select 'acme', i, 1, 1, now() from generate_series(1, {BACKLOG}) i;
insert into public.audit_log
  (tenant_id, timestamp, event_id, event_type, category, action, message, source_service, details)
select 'acme', now(), gen_random_uuid(), 'auth.login_failure', 'auth', 'login_failure', '', 'ui_iot',
       '{{"reason": "expired"}}'
from generate_series(1, {BACKLOG});
reset session_replication_role;
"""

# A block is enough: the sealed rows follow from its snapshot, which sees everything committed by now.
_SEAL = """
insert into audit.blocks
select coalesce(max(block_no) + 1, 0), date_trunc('month', now() at time zone 'UTC')::date, '1:1:',
       pg_current_snapshot(), pg_snapshot_xmax(pg_current_snapshot()), coalesce(max(first_position + row_count), 0),
       1, now(), now(), sha256(''), sha256(''), now(), 1
from audit.blocks
"""


async def make_history(conn: asyncpg.Connection) -> None:
    """Fill the clone; conn is the superuser's."""
    await conn.execute(_STATEMENTS)
    await mark_sealed(conn)


async def make_backlog(conn: asyncpg.Connection) -> None:
    """Insert BACKLOG waiting rows into each queue, and as many recent rows."""
    await conn.execute(_BACKLOG)


async def mark_sealed(conn: asyncpg.Connection) -> None:
    """Mark every audit event so far as sealed."""
    await conn.execute(_SEAL)
