create view metrics.partitions_ahead_seconds as
select
  parent.relname::text as table_name,
  greatest(coalesce(extract(epoch from max(ops._partition_end(i.inhrelid)) - now()), 0), 0)::double precision as value
from pg_class parent
left join pg_inherits i on i.inhparent = parent.oid
where parent.oid in ('public.telemetry'::regclass, 'public.audit_log'::regclass)
group by parent.relname;

comment on view metrics.partitions_ahead_seconds is
  'Time until the end of the last existing partition, by table, 0 if there is none.';
