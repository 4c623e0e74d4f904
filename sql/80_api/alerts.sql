-- The listed views are no security barriers: a barrier keeps order and limit away from the index, so that a page reads
-- all of a tenant's rows. It would protect nothing, because pulse_app takes no SQL from callers and sets the tenant
-- itself.
create view api.alerts as
select
  a.alert_id,
  a.fingerprint,
  a.rule_id,
  a.rule_name,
  a.device_id,
  a.device_name,
  a.metric,
  a.severity,
  a.status,
  a.message,
  a.value,
  a.opened_at,
  a.acknowledged_at,
  a.acknowledged_by,
  a.closed_at,
  a.close_reason,
  a.silenced_until,
  a.trace_id,
  a.recorded_at
from public.alerts a
where a.tenant_id = core.current_tenant();

comment on view api.alerts is 'Alerts of the current tenant.';
