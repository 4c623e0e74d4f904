-- Fires before the rows are gone, so that the event has their number.
create function audit._capture_truncate() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_rows bigint;
begin
  perform audit._require_actor(tg_relid);
  execute format('select count(*) from %s', tg_relid::regclass) into v_rows;
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'config.table_truncated',
    p_entity_type => 'table',
    p_entity_id => format('%s.%s', tg_table_schema, tg_table_name),
    p_message => format('table %s.%s truncated: %s rows', tg_table_schema, tg_table_name, v_rows),
    p_details => jsonb_build_object('entity_type', tg_argv[0], 'rows', v_rows))]);
  return null;
end
$$;

comment on function audit._capture_truncate() is
  'Write a config event that a table is emptied. Raises PU403 without an actor.';
