create function audit._drop_tracking(p_table regclass) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_trigger name;
begin
  for v_trigger in
    select t.tgname
    from pg_trigger t
    where t.tgrelid = p_table
      and t.tgfoid in ('audit._capture_changes()'::regprocedure, 'audit._capture_truncate()'::regprocedure)
  loop
    execute format('drop trigger %I on %s', v_trigger, p_table);
  end loop;
end
$$;

comment on function audit._drop_tracking(regclass) is 'Drop the triggers that audit._install_tracking created.';
