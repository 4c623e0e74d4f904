create view metrics.partitions as
select parent.relname::text as table_name, count(i.inhrelid) as value
from pg_class parent
left join pg_inherits i on i.inhparent = parent.oid
where parent.oid in ('public.telemetry'::regclass, 'public.audit_log'::regclass)
group by parent.relname;

comment on view metrics.partitions is 'Existing partitions, including the default one, by table.';
