create view metrics.audit_retention_overdue_months as
with overdue as materialized (
  select coalesce(m.obstacle, 'due') as reason
  from audit.retention r
  cross join lateral audit._overdue_months(r.keep_days) m
)
select known.reason, count(o.reason) as value
from (values ('due'), ('held'), ('broken'), ('unsealed')) known (reason)
left join overdue o on o.reason = known.reason
group by known.reason;

comment on view metrics.audit_retention_overdue_months is
  'Months of the audit trail past their retention, by reason: a legal hold (held), an open alert about the log '
  '(broken), events that are not sealed (unsealed), or none (due).';
