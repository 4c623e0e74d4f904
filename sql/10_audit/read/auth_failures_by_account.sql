create view audit.auth_failures_by_account as
select
  details ->> 'account' as account,
  max(actor_id) as actor_id,
  sum(audit._occurrences(details))::bigint as failures,
  count(distinct audit._address_group(ip_address)) as addresses,
  array_agg(distinct details ->> 'reason') as reasons,
  min(timestamp) as first_at,
  max(timestamp) as last_at
from public.audit_log
-- The second condition implies the first, which lets the planner take the index of accounts.
where event_type like 'auth.%'
  and event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited')
  and details ->> 'account' is not null
group by details ->> 'account';

comment on view audit.auth_failures_by_account is
  'Refused requests by account, over all time. An account is the keyed pseudonym of the name that a token claims. '
  'actor_id is set if a token proved it. Example: select * from audit.auth_failures_by_account where account = '
  '''acct_…'';';
