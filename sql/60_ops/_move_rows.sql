create function ops._move_rows(
  p_from text,
  p_to text,
  p_lower_bound timestamptz,
  p_upper_bound timestamptz
) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_guards jsonb;
  v_moved bigint;
begin
  -- An append-only guard would refuse the delete. The caller's lock excludes other sessions while the guard is disabled,
  -- and the guard is enabled again before the transaction ends.
  v_guards := ops._set_guards(p_table => p_from, p_modes => '{}');
  execute format(
    'with moved as (delete from only public.%I where timestamp >= $1 and timestamp < $2 returning *)
    insert into public.%I select * from moved',
    p_from, p_to
  ) using p_lower_bound, p_upper_bound;
  get diagnostics v_moved = row_count;
  perform ops._set_guards(p_table => p_from, p_modes => v_guards);
  return v_moved;
end
$$;

comment on function ops._move_rows(text, text, timestamptz, timestamptz) is
  'Move the rows of a range of timestamps from a default partition, locked by the caller, to a table of the same shape. '
  'Return their number.';
