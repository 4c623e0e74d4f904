create view trace._attempt_spans as
select
  d.tenant_id,
  d.trace_id,
  'attempt' as kind,
  core.span_id(d.trace_id, 'attempt', d.job_id || ':' || d.attempt) as span_id,
  array[core.span_id(d.trace_id, 'job', d.job_id::text)] as parents,
  coalesce(d.started_at, d.finished_at) as at,
  d.duration_ms,
  'delivery_worker' as service,
  'notification_job' as entity_type,
  d.job_id::text as entity_id,
  format('attempt %s: %s', d.attempt, d.outcome) || coalesce(' (HTTP ' || d.status_code || ')', '') as what,
  jsonb_build_object(
    'channel_id', d.channel_id, 'attempt', d.attempt, 'status_code', d.status_code, 'error', d.error,
    'worker', d.worker, 'finished_at', d.finished_at
  ) as details
from public.delivery_attempts d;

comment on view trace._attempt_spans is 'Delivery attempts as spans of the notification''s trace.';
