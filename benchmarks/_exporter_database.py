"""A database with history and a backlog, like one after months in production."""

import asyncpg

DEVICES = 1000
# Foreign keys and triggers rest meanwhile. History is spread over the month before now, so that the views that look at
# an hour find their share; what is pending came within the last minutes.
_FILL = """
create table telemetry_past partition of public.telemetry for values from ('2000-01-01 00:00+00') to ('{telemetry}');
create table audit_log_past partition of public.audit_log for values from ('2000-01-01 00:00+00') to ('{audit_log}');
set session_replication_role = replica;
insert into public.tenants (tenant_id, name) values ('acme', 'Acme');
insert into public.devices (tenant_id, device_id, name)
select 'acme', 'd' || i, 'Device' from generate_series(1, {devices}) i;
insert into public.device_state (tenant_id, device_id, metric, timestamp, value, received_at)
select 'acme', 'd' || i, 'temperature', now(), 1, now() from generate_series(1, {devices}) i;
insert into public.alert_rules (tenant_id, name, metric, operator, threshold) values ('acme', 'hot', 'a', '>', 1);
insert into public.notification_channels (tenant_id, name, kind, config) values ('acme', 'sink', 'webhook', '{{}}');
insert into public.telemetry (tenant_id, timestamp, device_id, metric, value, received_at)
select 'acme', now() - i * {step}, 'd' || i % {devices}, 'temperature', 1, now() - i * {step}
from generate_series(1, {rows}) i;
insert into public.alerts
  (tenant_id, fingerprint, rule_id, rule_name, severity, status, message, opened_at, closed_at, close_reason)
select 'acme', 'rule:1:' || i, 1, 'hot', 'warning', 'closed', 'hot', now() - i * {step}, now(), 'resolved'
from generate_series(1, {rows}) i;
insert into public.alert_events (tenant_id, alert_id, kind, occurred_at, recorded_at, dispatched_at)
select 'acme', i, 'opened', now() - i * {step}, now() - i * {step}, now() - i * {step}
from generate_series(1, {rows}) i;
insert into public.notification_jobs
  (tenant_id, event_id, alert_id, channel_id, kind, state, payload, run_at, finished_at)
select 'acme', i, i, 1, 'opened', 'delivered', '{{}}', now() - i * {step}, now() - i * {step}
from generate_series(1, {rows}) i;
insert into public.delivery_attempts
  (tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome, started_at, finished_at)
select 'acme', i, 1, 1, 1, 'w', 'delivered', now() - i * {step}, now() - i * {step} from generate_series(1, {rows}) i;
insert into public.audit_log
  (tenant_id, timestamp, event_id, recorded_at, event_type, category, action, message, source_service)
select 'acme', now() - i * {step}, gen_random_uuid(), now() - i * {step}, 'alert.opened', 'alert', 'opened', 'hot',
       'evaluator_iot'
from generate_series(1, {rows}) i;
insert into audit.blocks
values (0, '2000-01-01', '1:1:', pg_current_snapshot(), pg_snapshot_xmax(pg_current_snapshot()), 0, {rows}, now(),
        now(), sha256(''), sha256(''), now(), 1);
insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value)
select i % 16, i, 'acme', 'd' || i % {devices}, 'temperature', now(), 1 from generate_series(1, {pending}) i;
insert into public.alerts (tenant_id, fingerprint, rule_name, severity, status, message, opened_at)
select 'acme', 'open:' || i, 'hot', 'critical', 'open', 'hot', now() from generate_series(1, {pending}) i;
insert into public.alert_events (tenant_id, alert_id, kind, occurred_at)
select 'acme', {rows} + i, 'opened', now() from generate_series(1, {pending}) i;
insert into public.notification_jobs (tenant_id, event_id, alert_id, channel_id, kind, payload)
select 'acme', {rows} + i, {rows} + i, 1, 'opened', '{{}}' from generate_series(1, {pending}) i;
reset session_replication_role
"""
# First month with a partition.
_FIRST = """
select inhparent::regclass::text, min((regexp_match(pg_get_expr(relpartbound, oid), $$'(.+?)'$$))[1]::timestamptz)
from pg_inherits join pg_class on oid = inhrelid
where inhparent in ('public.telemetry'::regclass, 'public.audit_log'::regclass)
group by inhparent
"""
TABLES = 6
"""Tables that the history lies in, and 4 that hold what is pending."""


async def fill(conn: asyncpg.Connection, *, history: int, pending: int) -> None:
    """Fill the growing tables with the given numbers of finished and waiting rows."""
    rows = max(1, history // TABLES)
    await conn.execute("select ops.ensure_partitions()")
    first = dict(await conn.fetch(_FIRST))
    step = f"interval '{30 * 86_400 / rows:.6f} seconds'"
    await conn.execute(_FILL.format(rows=rows, pending=max(1, pending // 4), devices=DEVICES, step=step, **first))
    await conn.execute("vacuum analyze")
