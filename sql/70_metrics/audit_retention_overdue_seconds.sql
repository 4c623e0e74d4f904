create view metrics.audit_retention_overdue_seconds as
with overdue as materialized (
  select coalesce(m.obstacle, 'due') as reason, extract(epoch from core.now() - m.due_at) as seconds
  from audit.retention r
  cross join lateral audit._overdue_months(r.keep_days) m
)
select known.reason, coalesce(max(o.seconds), 0)::double precision as value
from (values ('due'), ('held'), ('broken'), ('unsealed')) known (reason)
left join overdue o on o.reason = known.reason
group by known.reason;

comment on view metrics.audit_retention_overdue_seconds is
  'How long the oldest month of the audit trail is past its retention by what keeps it, a legal hold, an open alert '
  'about the log, events that are not sealed, or nothing (due), 0 when there is none.';
