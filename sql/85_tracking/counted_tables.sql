-- The triggers that keep public.tenant_usage and ingest.series_counts, for all statements that add or remove rows.
-- ingest.record_readings counts new series, because an insert trigger on device_state would slow down every request.
do $$
declare
  v_table record;
begin
  for v_table in
    select *
    from (
      values ('alert_rules', $f$core._count_rows('rules')$f$), ('devices', $f$core._count_rows('devices')$f$),
        ('notification_channels', $f$core._count_rows('channels')$f$), ('device_state', 'ingest._uncount_series()')
    ) as counted_tables (name, call)
  loop
    if v_table.name <> 'device_state' then
      execute format(
        'create trigger count_added after insert on public.%I referencing new table as new_rows '
        'for each statement execute function %s', v_table.name, v_table.call);
      execute format('comment on trigger count_added on public.%I is %L', v_table.name,
        'Counts new rows and refuses rows above the tenant''s limit.');
    end if;
    execute format(
      'create trigger count_removed after delete on public.%I referencing old table as old_rows '
      'for each statement execute function %s', v_table.name, v_table.call);
    execute format('comment on trigger count_removed on public.%I is %L', v_table.name,
      'Subtracts removed rows from those that count against the tenant''s limit.');
    execute format(
      'create trigger count_truncated after truncate on public.%I for each statement execute function %s',
      v_table.name, v_table.call);
    execute format('comment on trigger count_truncated on public.%I is %L', v_table.name,
      'Resets the counts of all tenants.');
  end loop;
end
$$;
