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
  'Time for which the oldest month of the audit trail has been past its retention, by reason (see '
  'pulse_audit_retention_overdue_months), 0 if there is none.';
