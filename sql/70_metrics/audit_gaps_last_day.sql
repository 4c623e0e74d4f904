-- These events belong to the tenant system, so the index of event types finds them without reading other events.
create view metrics.audit_gaps_last_day as
select count(*) as value
from (
  select
  from public.audit_log
  where tenant_id = 'system' and event_type = 'audit.gap' and timestamp > core.now() - interval '1 day'
  limit 100000
) gaps;

comment on view metrics.audit_gaps_last_day is
  'Records of lost audit events within the last day, counted up to 100,000; each record holds the number of lost '
  'events.';
