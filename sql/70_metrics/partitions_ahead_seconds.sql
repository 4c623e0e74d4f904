-- The bound is read from how Postgres prints it, FOR VALUES FROM (…) TO ('2030-01-01 00:00:00+00').
create view metrics.partitions_ahead_seconds as
select
  parent.relname::text as table_name,
  greatest(coalesce(extract(epoch from max(bound.upper) - now()), 0), 0)::double precision as value
from pg_class parent
left join pg_inherits i on i.inhparent = parent.oid
left join pg_class part on part.oid = i.inhrelid
left join lateral (
  select substring(pg_get_expr(part.relpartbound, part.oid) from 'TO \(''([^'']+)''\)')::timestamptz as upper
) bound on true
where parent.oid in ('public.telemetry'::regclass, 'public.audit_log'::regclass)
group by parent.relname;

comment on view metrics.partitions_ahead_seconds is
  'Time from now to the end of the last partition that exists, by table, 0 when there is none.';
