create function audit.untrack(p_table regclass) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tracked audit.tracked_tables;
begin
  select t.* into v_tracked from audit.tracked_tables t where to_regclass(t.table_name) = p_table;
  if not found then
    raise exception using errcode = 'PU404', message = format('%s is not tracked', p_table);
  end if;
  perform audit._require_actor(p_table);
  perform audit._drop_tracking(p_table);
  perform audit._forget_tracking(v_tracked);
end
$$;

comment on function audit.untrack(regclass) is
  'End the tracking of a table. The event about it needs an actor. Raises PU404 if the table is not tracked.';
