-- A migration drops every trigger. This puts them back on the tables of audit.tracked_tables.
do $$
declare
  v_tracked audit.tracked_tables;
  v_fault text;
begin
  for v_tracked in select t.* from audit.tracked_tables t order by t.table_name loop
    v_fault := case
      when to_regclass(v_tracked.table_name) is null then 'is gone'
      else audit._tracking_fault(v_tracked.table_name::regclass)
    end;
    if v_fault is null then
      perform audit._install_tracking(v_tracked);
    else
      raise notice '% % and no longer tracked', v_tracked.table_name, v_fault;
      perform audit._forget_tracking(v_tracked);
    end if;
  end loop;
end
$$;
