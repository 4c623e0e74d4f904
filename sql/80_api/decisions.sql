create view api.decisions as
select
  d.alert_id,
  d.event_id,
  d.channel_id,
  c.name as channel_name,
  d.decision,
  d.reason,
  d.route_id,
  d.job_id,
  case when d.decision = 'pending' and p.paused_until > core.now() then p.paused_until end as paused_until,
  d.last_error,
  d.decided_at
from (
  select
    j.tenant_id, j.alert_id, j.event_id, j.channel_id, j.state as decision, j.dead_reason as reason, j.route_id, j.job_id,
    j.last_error, j.created_at as decided_at
  from public.notification_jobs j
  union all
  select
    s.tenant_id, s.alert_id, s.event_id, s.channel_id, 'suppressed' as decision, s.reason, s.route_id, null as job_id,
    null as last_error, s.recorded_at as decided_at
  from public.suppressions s
) d
left join public.notification_channels c on c.tenant_id = d.tenant_id and c.channel_id = d.channel_id
left join delivery.lanes p on p.tenant_id = d.tenant_id and p.channel_id = d.channel_id
where d.tenant_id = core.current_tenant();

comment on view api.decisions is
  'Decision about each alert event and channel of the current tenant: the state of the notification, or suppressed, '
  'with the reason.';
