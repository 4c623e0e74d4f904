create view audit.auth_failures_by_reason as
select d.day, f.reason, f.failures, f.addresses, f.accounts, f.first_at, f.last_at
from audit._days d
cross join lateral (
  select
    l.details ->> 'reason' as reason,
    sum(audit._occurrences(l.details))::bigint as failures,
    count(distinct audit._address_group(l.ip_address)) as addresses,
    count(distinct l.details ->> 'account') as accounts,
    min(l.timestamp) as first_at,
    max(l.timestamp) as last_at
  from public.audit_log l
  where l.timestamp >= d.starts_at
    and l.timestamp < d.ends_at
    -- The second condition implies the first, which lets the planner take the index of auth events.
    and l.event_type like 'auth.%'
    and l.event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited')
  group by l.details ->> 'reason'
) f;

comment on view audit.auth_failures_by_reason is
  'Refused requests by day (UTC) and reason. '
  'Example: select * from audit.auth_failures_by_reason where day >= current_date - 7 order by day desc, failures desc;';
