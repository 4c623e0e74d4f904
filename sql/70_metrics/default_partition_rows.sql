create view metrics.default_partition_rows as
select
  'telemetry' as table_name,
  (select count(*) from (select from public.telemetry_default limit 10000) rows) as value
union all
select
  'audit_log',
  (select count(*) from (select from public.audit_log_default limit 10000) rows);

comment on view metrics.default_partition_rows is
  'Rows in default partitions, which wait for ops_worker to create their own partition, by table, counted up to 10,000.';
