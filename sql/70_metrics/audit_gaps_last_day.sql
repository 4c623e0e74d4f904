-- Tenant by tenant, because so the index of event types leads to them and past all other events.
create view metrics.audit_gaps_last_day as
select count(*) as value
from (
  select
  from public.tenants t
  join public.audit_log a
    on a.tenant_id = t.tenant_id
    and a.event_type = 'audit.gap'
    and a.timestamp > now() - interval '1 day'
  limit 100000
) gaps;

comment on view metrics.audit_gaps_last_day is
  'Records of lost audit events within the last day, counted up to 100,000; each says how many events it stands for.';
