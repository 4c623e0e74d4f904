create view metrics.audit_retention_days as
select keep_days as value
from audit.retention;

comment on view metrics.audit_retention_days is
  'Age in days at which a month of the audit trail is dropped, as the ops worker last set it; 0 for never.';
