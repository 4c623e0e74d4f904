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
  case when j.state = 'pending' and p.paused_until > core.now() then p.paused_until end as paused_until,
  case when j.state = 'pending' and p.paused_until > core.now() then p.reason end as paused_because,
  j.attempts,
  j.max_attempts,
  j.idempotency_key,
  j.created_at,
  j.finished_at,
  j.dead_reason,
  j.last_error,
  j.route_id,
  j.trace_id
from public.notification_jobs j
left join public.notification_channels c on c.tenant_id = j.tenant_id and c.channel_id = j.channel_id
left join delivery.lanes p on p.tenant_id = j.tenant_id and p.channel_id = j.channel_id
where j.tenant_id = core.current_tenant();

comment on view api.deliveries is
  'Notifications of the current tenant with their state and the end of a pause that they wait for.';
