-- Only the silence of an alert is configuration: audit.tracked_tables names that column alone.
create function audit._change_type(p_entity_type text, p_act text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_type constant text :=
    format('config.%s_%s', p_entity_type, case when p_entity_type = 'alert' then 'silenced' else p_act end);
begin
  return case
    when exists (select from audit.event_types t where t.event_type = v_type) then v_type
    else format('config.row_%s', p_act)
  end;
end
$$;

comment on function audit._change_type(text, text) is
  'Return the event type of a row that was created, updated or deleted: the entity''s own if the registry has one.';
