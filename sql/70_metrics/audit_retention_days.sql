create view metrics.audit_retention_days as
select keep_days as value
from audit.retention;

comment on view metrics.audit_retention_days is
  'Age at which a month of the audit trail is dropped, in days, as the ops worker was last set; 0 for never.';
