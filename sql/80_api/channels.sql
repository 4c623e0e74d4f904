create view api.channels as
select
  c.channel_id,
  c.name,
  c.kind,
  jsonb_strip_nulls(jsonb_build_object('url', c.shown_url)) as config,
  c.enabled,
  c.disabled_reason,
  case when p.paused_until > core.now() then p.paused_until end as paused_until,
  case when p.paused_until > core.now() then p.reason end as paused_because,
  (select s.finished_at from delivery._last_attempt(c.channel_id, 'delivered') s) as last_success_at,
  e.finished_at as last_error_at,
  e.error as last_error,
  c.created_at,
  c.updated_at
from public.notification_channels c
left join delivery.lanes p on p.tenant_id = c.tenant_id and p.channel_id = c.channel_id
left join lateral (
  select newest.finished_at, newest.error
  from (values ('retry'), ('limited'), ('refused'), ('gone'), ('unknown')) failure (outcome)
  cross join lateral delivery._last_attempt(c.channel_id, failure.outcome) newest
  order by newest.attempt_id desc
  limit 1
) e on true
where c.tenant_id = core.current_tenant();

comment on view api.channels is
  'Notification channels of the current tenant with their recent health, without their secrets.';
