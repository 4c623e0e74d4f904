-- Tenant by tenant, because so the index of event types leads to the failures and past all other events.
-- A reason outside the closed list counts as other: no label takes a value that a caller could choose.
create view metrics.auth_failures_last_hour as
with known (reason) as (
  values
    ('missing_token'), ('invalid_token'), ('expired'), ('invalid_claims'), ('unknown_key'), ('auth_unavailable'),
    ('rate_limited'), ('forbidden'), ('other')
),
failed as (
  select a.details ->> 'reason' as reason
  from public.tenants t
  join public.audit_log a
    on a.tenant_id = t.tenant_id
    and a.event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited')
    and a.timestamp > now() - interval '1 hour'
  limit 100000
),
counted as (
  select coalesce(k.reason, 'other') as reason, count(*) as failures
  from failed f
  left join known k on k.reason = f.reason
  group by 1
)
select known.reason, coalesce(c.failures, 0) as value
from known
left join counted c on c.reason = known.reason;

comment on view metrics.auth_failures_last_hour is
  'Requests turned away within the last hour by reason, counted up to 100,000.';
