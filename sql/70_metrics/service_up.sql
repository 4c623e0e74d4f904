create view metrics.service_up as
select service, case when checked_at > core.now() - interval '5 minutes' then status = 'up' end as value
from public.service_health
where tenant_id = 'system';

comment on view metrics.service_up is
  'Whether the health monitor''s last check of a service succeeded; absent when that was more than 5 minutes ago.';
