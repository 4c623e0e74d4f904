create view api.channels as
select
  c.channel_id,
  c.name,
  c.kind,
  jsonb_strip_nulls(jsonb_build_object('url', c.shown_url)) as config,
  c.enabled,
  c.created_at,
  c.updated_at
from public.notification_channels c
where c.tenant_id = core.current_tenant();

comment on view api.channels is 'Notification channels of the current tenant, without their secrets.';
