create view api.delivery_attempts as
select
  a.job_id,
  a.attempt_id,
  a.channel_id,
  a.attempt,
  a.worker,
  a.outcome,
  a.status_code,
  a.error,
  a.started_at,
  a.finished_at,
  a.duration_ms,
  a.trace_id
from public.delivery_attempts a
where a.tenant_id = core.current_tenant();

comment on view api.delivery_attempts is 'Delivery attempts of the current tenant.';
