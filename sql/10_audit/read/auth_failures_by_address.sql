create view audit.auth_failures_by_address as
select
  ip_address,
  sum(audit._occurrences(details))::bigint as attempts,
  count(distinct coalesce(details ->> 'account', tenant_id || ' ' || actor_id)) as accounts,
  array_agg(distinct details ->> 'reason') as reasons,
  min(timestamp) as first_at,
  max(timestamp) as last_at
from public.audit_log
where event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited')
group by ip_address;

comment on view audit.auth_failures_by_address is
  'Refused requests by client address, over all time. Suspected attacks are in audit.attacks. Example: select * from '
  'audit.auth_failures_by_address where ip_address = ''203.0.113.7'';';
