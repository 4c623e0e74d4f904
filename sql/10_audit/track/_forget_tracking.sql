create function audit._forget_tracking(p_tracked audit.tracked_tables) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  delete from audit.tracked_tables t where t.table_name = p_tracked.table_name;
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'config.table_untracked',
    p_entity_type => 'table',
    p_entity_id => p_tracked.table_name,
    p_message => format('changes of table %s are no longer audited', p_tracked.table_name),
    p_details => to_jsonb(p_tracked))]);
end
$$;

comment on function audit._forget_tracking(audit.tracked_tables) is
  'Remove a table from the list of tracked tables and write the event about it.';
