-- Postgres prints a bound, FOR VALUES FROM (…) TO ('2030-01-01 00:00:00+00'), in the session's style. Read back in the
-- same style it can be another time, because an abbreviation such as IST stands for several zones.
create function ops._partition_end(p_partition oid) returns timestamptz
language sql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO'
as $$
  select substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''([^'']+)''\)')::timestamptz
  from pg_class c
  where c.oid = p_partition
$$;

comment on function ops._partition_end(oid) is
  'Return the upper bound of a partition''s timestamps; null for a default partition and for relations that are not '
  'partitioned by time.';
