-- The index of refusals skips all other events, and the timestamp skips earlier months. Events that waited in a spool for
-- longer than an hour are not counted. A reason outside the closed list counts as other, because no label may take a
-- value that a caller chooses.
create view metrics.auth_failures_last_hour as
with known (reason) as (
  select reason from audit.auth_failure_reasons
  union all values ('other')
),
failed as (
  select details ->> 'reason' as reason
  from public.audit_log
  where event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited')
    and timestamp > (select core.now() - interval '1 hour')
    and recorded_at > (select core.now() - interval '1 hour')
  limit 10000
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
  'Refused requests within the last hour by reason, counting up to 10,000.';
