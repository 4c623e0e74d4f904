create view api.routes as
select
  r.route_id,
  r.name,
  r.channel_id,
  r.min_severity,
  r.rule_id,
  r.tag,
  r.enabled,
  r.created_at,
  r.updated_at
from public.notification_routes r
where r.tenant_id = core.current_tenant();

comment on view api.routes is 'Notification routes of the current tenant.';
