-- These events belong to the tenant system, so the index of event types finds them without reading other events.
create view metrics.audit_quarantined_last_day as
select count(*) as value
from (
  select
  from public.audit_log
  where tenant_id = 'system' and event_type = 'audit.quarantined' and timestamp > core.now() - interval '1 day'
  limit 100000
) quarantined;

comment on view metrics.audit_quarantined_last_day is
  'Audit events within the last day that could not be stored in their original form, counted up to 100,000.';
