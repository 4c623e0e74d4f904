-- Tenant by tenant, because so the index of event types leads to them and past all other events.
create view metrics.audit_quarantined_last_day as
select count(*) as value
from (
  select
  from public.tenants t
  join public.audit_log a
    on a.tenant_id = t.tenant_id
    and a.event_type = 'audit.quarantined'
    and a.timestamp > now() - interval '1 day'
  limit 100000
) quarantined;

comment on view metrics.audit_quarantined_last_day is
  'Audit events within the last day that could not be stored as they were, counted up to 100,000.';
