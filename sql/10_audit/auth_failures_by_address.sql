create view audit.auth_failures_by_address as
select
  ip_address,
  count(*) as attempts,
  count(distinct (tenant_id, actor_id)) filter (where actor_id is not null) as accounts,
  array_agg(distinct details ->> 'reason') as reasons,
  min(timestamp) as first_at,
  max(timestamp) as last_at
from public.audit_log
where event_type like 'auth.%'
  and event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited')
group by ip_address;

comment on view audit.auth_failures_by_address is
  'Refused requests by client address, over all time: many attempts on few accounts is brute force, on many is spraying.';
