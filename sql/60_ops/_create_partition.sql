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
  -- Writers must wait at the parent. A writer that waited at the default partition would already have been routed there,
  -- and its row would be refused once the range belongs to the new partition.
  execute format('lock table only public.%I in share row exclusive mode', p_parent);
  execute format('lock table public.%I in access exclusive mode', v_default);
  execute format('create table public.%I (like public.%I including all)', p_name, p_parent);
  -- If two ids have most of the rows, statistics would expect as many for any id, and plans would avoid the index.
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
  -- A partition inherits the guard on rows, but not the guard against TRUNCATE.
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
  'Create one partition and move the rows of its range out of the default partition in one transaction. Return the '
  'number of rows moved. Locks the parent against writers, and its default partition against all sessions, until '
  'commit. The move takes time only if the partition was not made ahead.';
