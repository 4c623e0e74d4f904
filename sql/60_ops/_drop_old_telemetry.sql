create function ops._drop_old_telemetry(p_before timestamptz) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
as $$
declare
  v_partition text;
begin
  select partition.relname
  into v_partition
  from pg_inherits
  join pg_class partition on partition.oid = pg_inherits.inhrelid
  where pg_inherits.inhparent = 'public.telemetry'::regclass
    and partition.relname ~ '^telemetry_[0-9]{8}$'
    -- The name holds the bounds, a whole UTC day.
    and to_timestamp(right(partition.relname, 8), 'YYYYMMDD') + interval '1 day' <= p_before
  order by partition.relname
  limit 1;
  if found then
    execute format('drop table public.%I', v_partition);
  end if;
  return v_partition;
exception when lock_not_available then
  -- A long query reads telemetry. The next pass tries again.
  return null;
end
$$;

comment on function ops._drop_old_telemetry(timestamptz) is
  'Drop the oldest daily partition of telemetry that ends before p_before. Return its name, null if there is none or '
  'its lock is not free.';
