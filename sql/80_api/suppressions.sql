create view api.suppressions as
select
  s.alert_id,
  s.suppression_id,
  s.event_id,
  s.channel_id,
  s.reason,
  s.route_id,
  s.recorded_at,
  s.trace_id
from public.suppressions s
where s.tenant_id = core.current_tenant();

comment on view api.suppressions is
  'Alert events of the current tenant that did not become a notification, with the reason.';
