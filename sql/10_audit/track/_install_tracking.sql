create function audit._install_tracking(p_tracked audit.tracked_tables) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set standard_conforming_strings = on
as $$
declare
  v_table constant regclass := p_tracked.table_name::regclass;
  v_trigger record;
begin
  perform audit._drop_tracking(v_table);
  for v_trigger in select t.* from audit._tracking_triggers(p_tracked) t loop
    execute v_trigger.definition;
    execute format('comment on trigger %I on %s is %L', v_trigger.name, v_table, v_trigger.description);
  end loop;
end
$$;

comment on function audit._install_tracking(audit.tracked_tables) is
  'Create the triggers of a tracked table in place of the present ones.';
