create view metrics.audit_retention_last_run_age_seconds as
select extract(epoch from core.now() - last_run_at)::double precision as value
from audit.retention;

comment on view metrics.audit_retention_last_run_age_seconds is
  'Time since the last retention pass over the audit trail without a fault; absent before the first.';
