create function ops.ensure_partitions(p_ahead_days integer default 7, p_ahead_months integer default 2)
returns table (partition_name text, outcome text, rows_moved bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- Writers queue behind a waiting lock, so give up and try again at the next pass.
set lock_timeout = '300ms'
as $$
declare
  v_partition record;
begin
  -- One transaction creates them all, and writers wait for its end.
  if p_ahead_days not between 0 and 366 or p_ahead_months not between 0 and 24 then
    raise exception using errcode = 'PU422', message = 'partitions can be created at most 366 days and 24 months ahead';
  end if;
  perform ops._await_lock('partitions');
  for v_partition in
    select plan.*
    from ops._partition_plan(p_ahead_days => p_ahead_days, p_ahead_months => p_ahead_months) plan
    where to_regclass(format('public.%I', plan.name)) is null
  loop
    partition_name := v_partition.name;
    begin
      rows_moved := ops._create_partition(
        p_parent => v_partition.parent,
        p_name => v_partition.name,
        p_lower_bound => v_partition.lower_bound,
        p_upper_bound => v_partition.upper_bound
      );
      perform ops._audit(
        p_event_type => 'system.partition_created',
        p_entity_type => 'partition',
        p_entity_id => v_partition.name,
        p_message => format('Partition %s was created, %s rows moved into it.', v_partition.name, rows_moved),
        p_details => jsonb_build_object('parent', v_partition.parent, 'rows_moved', rows_moved)
      );
      outcome := 'created';
    exception when lock_not_available then
      outcome := 'busy';
      rows_moved := 0;
    end;
    return next;
  end loop;
end
$$;

comment on function ops.ensure_partitions(integer, integer) is
  'Create the missing partitions of telemetry (days) and audit_log (months), up to the given number ahead. Return each '
  'one with its outcome: created, or busy if its locks were not free in time. Any number of copies may call it at once. '
  'Raises 55P03 if another one takes long, PU422 above 366 days or 24 months.';
