-- No security barrier on the views that are listed: it keeps order and limit away from the index, so that a page reads all
-- of a tenant's rows. It would protect from nobody: pulse_app takes no SQL from callers and sets the tenant itself.
create view api.audit_events as
select
  l.event_id,
  l.timestamp,
  l.recorded_at,
  l.event_type,
  l.category,
  l.severity,
  l.entity_type,
  l.entity_id,
  l.entity_name,
  l.action,
  l.message,
  l.details,
  l.source_service,
  l.actor_type,
  l.actor_id,
  l.actor_name,
  host(l.ip_address) as ip_address,
  l.trace_id,
  l.duration_ms
from public.audit_log l
where l.tenant_id = core.current_tenant();

comment on view api.audit_events is 'The audit trail of the current tenant.';
