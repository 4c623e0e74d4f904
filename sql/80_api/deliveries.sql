create view api.deliveries as
select
  j.job_id,
  j.event_id,
  j.alert_id,
  j.channel_id,
  c.name as channel_name,
  j.kind,
  j.state,
  j.run_at,
  j.attempts,
  j.max_attempts,
  j.idempotency_key,
  j.created_at,
  j.finished_at,
  j.last_error,
  j.trace_id
from public.notification_jobs j
left join public.notification_channels c on c.tenant_id = j.tenant_id and c.channel_id = j.channel_id
where j.tenant_id = core.current_tenant();

comment on view api.deliveries is 'Notifications of the current tenant and where they stand.';
