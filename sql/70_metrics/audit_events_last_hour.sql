create view metrics.audit_events_last_hour as
with newest as (
  select category
  from public.audit_log
  where timestamp > now() - interval '1 hour'
  order by timestamp desc
  limit 100000
)
select known.category, count(n.category) as value
from (select distinct split_part(event_type, '.', 1) as category from audit.event_types) known
left join newest n on n.category = known.category
group by known.category;

comment on view metrics.audit_events_last_hour is
  'Audit events that happened within the last hour by category, counting its newest 100,000.';
