create view audit.daily_digest as
select d.day, e.tenant_id, e.category, e.event_type, e.events, e.actors, e.failures, e.first_at, e.last_at
from audit._days d
cross join lateral (
  select
    l.tenant_id,
    l.category,
    l.event_type,
    sum(audit._occurrences(l.details))::bigint as events,
    count(distinct (l.actor_type, l.actor_id)) filter (where l.actor_id is not null) as actors,
    coalesce(
      sum(audit._occurrences(l.details)) filter (
        where l.severity in ('error', 'critical')
          or l.event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited')
      ),
      0
    )::bigint as failures,
    min(l.timestamp) as first_at,
    max(l.timestamp) as last_at
  from public.audit_log l
  where l.timestamp >= d.starts_at
    and l.timestamp < d.ends_at
  group by l.tenant_id, l.category, l.event_type
) e;

comment on view audit.daily_digest is
  'Number of events of each day (UTC), by tenant and event type. failures are refused requests and events of severity '
  'error or higher. Example: select * from audit.daily_digest where day = current_date - 1 order by tenant_id, '
  'event_type;';
