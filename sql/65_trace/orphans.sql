-- Each row of a chain is written in the transaction that decides it, so any snapshot holds whole chains and rows of this
-- view were damaged. Where retention may have removed the other end, only rows that are too young for that are checked.
create view trace.orphans as
select a.tenant_id, a.trace_id, 'alert without its opening' as fault, 'alert' as entity_type, a.alert_id::text as entity_id,
  a.recorded_at as at
from public.alerts a
where not exists (
  select from public.alert_events e where e.tenant_id = a.tenant_id and e.alert_id = a.alert_id and e.kind = 'opened')
union all
-- A reading is written to the inbox and to telemetry in one transaction, and telemetry keeps it for at least 9 days. A
-- breach may begin up to 7 days before its alert.
select a.tenant_id, a.trace_id, 'alert without a reading', 'alert', a.alert_id::text, a.recorded_at
from public.alerts a
where a.rule_id is not null and a.trace_id is not null and a.opened_at > now() - interval '1 day'
  and (
    select true
    from public.telemetry r
    where r.trace_id = a.trace_id and r.tenant_id = a.tenant_id and r.timestamp > now() - interval '9 days'
    limit 1  -- keeps it a look-up by index
  ) is null
  -- Another value for the same instant replaced the reading and its trace.
  and not exists (
    select from public.telemetry r
    where r.tenant_id = a.tenant_id and r.device_id = a.device_id and r.metric = a.metric and r.overwrites > 0
      and r.timestamp > now() - interval '9 days')
union all
select e.tenant_id, e.trace_id, 'event without its alert', 'event', e.event_id::text, e.recorded_at
from public.alert_events e
where not exists (select from public.alerts a where a.tenant_id = e.tenant_id and a.alert_id = e.alert_id)
union all
select e.tenant_id, e.trace_id, 'dispatched event without job or suppression', 'event', e.event_id::text, e.recorded_at
from public.alert_events e
where e.dispatched_at is not null and e.kind not in ('silenced', 'flapping')
  and not exists (select from public.notification_jobs j where j.tenant_id = e.tenant_id and j.event_id = e.event_id)
  and not exists (select from public.suppressions s where s.tenant_id = e.tenant_id and s.event_id = e.event_id)
union all
select s.tenant_id, s.trace_id, 'suppression without its event', 'suppression', s.suppression_id::text, s.recorded_at
from public.suppressions s
where not exists (select from public.alert_events e where e.tenant_id = s.tenant_id and e.event_id = s.event_id)
union all
select j.tenant_id, j.trace_id,
  case when e.event_id is null then 'job without its event' else 'job in another trace than its event' end,
  'job', j.job_id::text, j.created_at
from public.notification_jobs j
left join public.alert_events e on e.tenant_id = j.tenant_id and e.event_id = j.event_id
where e.event_id is null or e.trace_id is distinct from j.trace_id
union all
-- A lease ends in exactly one attempt, which has its number.
select j.tenant_id, j.trace_id, 'job with a lease that left no attempt', 'job', j.job_id::text, j.created_at
from public.notification_jobs j
left join (
  select d.tenant_id, d.job_id, count(*) as attempts, max(d.attempt) as newest
  from public.delivery_attempts d
  group by d.tenant_id, d.job_id
) made on made.tenant_id = j.tenant_id and made.job_id = j.job_id
where greatest(coalesce(made.attempts, 0), made.newest) <> j.lease_epoch - (j.state = 'leased')::integer
  or made.attempts <> made.newest
union all
select d.tenant_id, d.trace_id,
  case when j.job_id is null then 'attempt without its job' else 'attempt in another trace than its job' end,
  'attempt', d.job_id || ':' || d.attempt, d.finished_at
from public.delivery_attempts d
left join public.notification_jobs j on j.tenant_id = d.tenant_id and j.job_id = d.job_id
where j.job_id is null or j.trace_id is distinct from d.trace_id
union all
-- By the device's clock, as retention counts. An alert that opened within a day did not end longer ago.
select l.tenant_id, l.trace_id, 'audited opening without its alert', 'alert', l.entity_id, l.timestamp
from public.audit_log l
where l.timestamp > now() - interval '1 day' and l.event_type = 'alert.opened' and l.entity_type = 'alert'
  and (l.details ->> 'occurred_at')::timestamptz > now() - interval '1 day'
  and not exists (
    select from public.alerts a
    where a.tenant_id = l.tenant_id
      and a.alert_id = case when l.entity_id ~ '^[0-9]{1,18}$' then l.entity_id::bigint end);

comment on view trace.orphans is
  'Rows whose cause or effect is missing. It should be empty at any moment. It reads all alerts and notifications, a '
  'few seconds at 100,000 of each; with a condition on trace_id it reads that trace only.';
