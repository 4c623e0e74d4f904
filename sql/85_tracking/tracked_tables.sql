-- A migration drops every trigger: here they come back, on our tables and on those that audit.track was told of.
do $$
declare
  v_tracked audit.tracked_tables;
begin
  for v_tracked in select t.* from audit.tracked_tables t order by t.table_name loop
    if exists (select from pg_class c where c.oid = to_regclass(v_tracked.table_name) and c.relkind = 'r') then
      perform audit._install_tracking(v_tracked);
    else
      raise notice 'there is no table % any more: it is no longer tracked', v_tracked.table_name;
      perform audit._forget_tracking(v_tracked);
    end if;
  end loop;
end
$$;
