-- The triggers that keep public.tenant_usage, whatever adds or removes the rows. New series are counted by
-- ingest.record_readings: an insert trigger on device_state would cost every request.
do $$
declare
  v_table record;
begin
  for v_table in
    select *
    from (
      values ('alert_rules', 'rules', true), ('devices', 'devices', true), ('notification_channels', 'channels', true),
        ('device_state', 'series', false)
    ) as counted_tables (table_name, limit_name, counts_added)
  loop
    if v_table.counts_added then
      execute format(
        'create trigger count_added after insert on public.%I referencing new table as new_rows '
        'for each statement execute function core._count_rows(%L)', v_table.table_name, v_table.limit_name);
      execute format('comment on trigger count_added on public.%I is %L', v_table.table_name,
        'Counts new rows and refuses those above the tenant''s limit.');
    end if;
    execute format(
      'create trigger count_removed after delete on public.%I referencing old table as old_rows '
      'for each statement execute function core._count_rows(%L)', v_table.table_name, v_table.limit_name);
    execute format('comment on trigger count_removed on public.%I is %L', v_table.table_name,
      'Makes room within the tenant''s limit.');
    execute format(
      'create trigger count_truncated after truncate on public.%I '
      'for each statement execute function core._count_rows(%L)', v_table.table_name, v_table.limit_name);
    execute format('comment on trigger count_truncated on public.%I is %L', v_table.table_name,
      'Makes room within the limits of all tenants.');
  end loop;
end
$$;
