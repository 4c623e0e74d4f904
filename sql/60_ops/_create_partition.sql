create function ops._create_partition(
  p_parent text,
  p_name text,
  p_lower_bound timestamptz,
  p_upper_bound timestamptz
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
declare
  v_default text := p_parent || '_default';
  v_moved bigint;
begin
  -- Writers have to wait at the parent. One that waited at the default partition would already have been sent there,
  -- and its row would be refused once the range belongs to the new partition.
  execute format('lock table only public.%I in share row exclusive mode', p_parent);
  execute format('lock table public.%I in access exclusive mode', v_default);
  execute format('create table public.%I (like public.%I including all)', p_name, p_parent);
  -- Where two ids have most of the rows, statistics would say that any id has, and plans would leave the index: say few.
  execute format('alter table public.%I alter column trace_id set (n_distinct = -1)', p_name);
  v_moved := ops._move_rows(
    p_from => v_default,
    p_to => p_name,
    p_lower_bound => p_lower_bound,
    p_upper_bound => p_upper_bound
  );
  execute format(
    'alter table public.%I attach partition public.%I for values from (%L) to (%L)',
    p_parent, p_name, p_lower_bound, p_upper_bound
  );
  -- The guard on rows follows to a partition by itself, the one against TRUNCATE does not.
  if p_parent = 'audit_log' then
    perform audit._guard_partition(format('public.%I', p_name)::regclass);
  end if;
  execute format(
    'comment on table public.%I is %L',
    p_name, format('Rows of %s from %s to before %s.', p_parent, p_lower_bound, p_upper_bound)
  );
  return v_moved;
end
$$;

comment on function ops._create_partition(text, text, timestamptz, timestamptz) is
  'Make one partition and move the rows of its range out of the default partition, unseen from outside; gives the '
  'number of rows moved. Locks the parent against writers and its default partition against everybody until commit, '
  'which takes as long as the move: partitions made ahead have nothing to move.';
