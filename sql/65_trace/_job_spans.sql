create view trace._job_spans as
select
  j.tenant_id,
  j.trace_id,
  'job' as kind,
  core.span_id(j.trace_id, 'job', j.job_id::text) as span_id,
  array[core.span_id(j.trace_id, 'event', j.event_id::text)] as parents,
  j.created_at as at,
  1000 * extract(epoch from j.finished_at - j.created_at)::double precision as duration_ms,
  'dispatcher' as service,
  'notification_job' as entity_type,
  j.job_id::text as entity_id,
  format('alert %s goes to %s %s, now %s', j.kind, c.kind, c.name, j.state) as what,
  jsonb_build_object(
    'event_id', j.event_id, 'alert_id', j.alert_id, 'channel_id', j.channel_id, 'channel', c.name, 'state', j.state,
    'attempts', j.attempts, 'run_at', j.run_at, 'finished_at', j.finished_at, 'last_error', j.last_error
  ) as details
from public.notification_jobs j
left join public.notification_channels c on c.tenant_id = j.tenant_id and c.channel_id = j.channel_id;

comment on view trace._job_spans is 'Notifications as spans of the alert event''s trace.';
