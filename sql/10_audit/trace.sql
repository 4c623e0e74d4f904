create view audit.trace as
select trace_id, timestamp as happened_at, tenant_id, 'audit_log' as source, event_type as event, message, source_service as service,
  actor_id, event_id::text as id
from public.audit_log
where trace_id is not null
union all
select trace_id, min(received_at), tenant_id, 'telemetry', 'readings.stored', format('%s readings of %s devices', count(*), count(distinct device_id)),
  'ui_iot', null, min(reading_id)::text
from public.telemetry
where trace_id is not null
group by trace_id, tenant_id
union all
select e.trace_id, e.recorded_at, e.tenant_id, 'alert_events', 'alert.' || e.kind, null, null, e.actor, e.alert_id::text
from public.alert_events e
where e.trace_id is not null
union all
select trace_id, created_at, tenant_id, 'notification_jobs', 'job.' || kind, last_error, 'dispatcher', null, job_id::text
from public.notification_jobs
where trace_id is not null
union all
select trace_id, recorded_at, tenant_id, 'suppressions', 'job.suppressed', reason, 'dispatcher', null, alert_id::text
from public.suppressions
where trace_id is not null
union all
select trace_id, coalesce(started_at, finished_at), tenant_id, 'delivery_attempts', 'attempt.' || outcome, error, worker, null, job_id::text
from public.delivery_attempts
where trace_id is not null;

comment on view audit.trace is
  'Everything one trace id left behind, over all tables: select * from audit.trace where trace_id = ''…'' order by happened_at;';
