create view audit.daily_digest as
select
  d.day,
  l.tenant_id,
  l.category,
  l.event_type,
  sum(audit._occurrences(l.details))::bigint as events,
  count(distinct (l.actor_type, l.actor_id)) filter (where l.actor_id is not null) as actors,
  (sum(audit._occurrences(l.details)) filter (where l.severity in ('error', 'critical') or (
    l.category = 'auth' and l.severity = 'warning')))::bigint as failures,
  min(l.timestamp) as first_at,
  max(l.timestamp) as last_at
from audit._days d
join public.audit_log l on l.timestamp >= d.starts_at and l.timestamp < d.ends_at
group by d.day, l.tenant_id, l.category, l.event_type;

comment on view audit.daily_digest is
  'What happened each day (UTC), by tenant and event type; failures are refused logins and events of severity error or more. '
  'Example: select * from audit.daily_digest where day = current_date - 1 order by tenant_id, event_type;';
