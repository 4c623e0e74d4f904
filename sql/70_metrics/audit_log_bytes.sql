create view metrics.audit_log_bytes as
select
  (select c.relname::text from pg_class c where c.oid = p.relid) as partition_name,
  pg_total_relation_size(p.relid) as value
from pg_partition_tree('public.audit_log') p
where p.isleaf;

comment on view metrics.audit_log_bytes is 'Disk space of the audit trail with its indexes, by partition.';
