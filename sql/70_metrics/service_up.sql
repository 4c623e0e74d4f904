create view metrics.service_up as
select service, case when checked_at > core.now() - interval '5 minutes' then status = 'up' end as value
from public.service_health
where tenant_id = 'system';

comment on view metrics.service_up is
  '1 if the health monitor''s last check of a service succeeded, 0 if it failed; absent if the last check is older than '
  '5 minutes.';
