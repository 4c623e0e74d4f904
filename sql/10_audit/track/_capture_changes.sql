-- The settings make values read the same under any client's settings, so that no number is cut and no change stays
-- hidden. Sorting instead of hashing lets a large statement spill to disk.
create function audit._capture_changes() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set datestyle = 'ISO'
set intervalstyle = 'postgres'
set timezone = 'UTC'
set bytea_output = 'hex'
set extra_float_digits = 1
set enable_hashagg = off
set jit = off
as $$
declare
  v_entity_type constant text := tg_argv[0];
  v_query constant text := audit._change_query(
    p_table => tg_relid,
    p_old => case
      when tg_level = 'ROW' then '(select ($5).*)'
      when tg_op = 'INSERT' then '(select * from new_rows where false)'
      else 'old_rows'
    end,
    p_new => case
      when tg_level = 'ROW' then '(select ($6).*)'
      when tg_op = 'DELETE' then '(select * from old_rows where false)'
      else 'new_rows'
    end,
    p_redacted_columns => tg_argv[1]::text[],
    p_only_columns => nullif(tg_argv[2], '')::text[]
  );
  v_events public.audit_log[];
begin
  for v_events in
    execute v_query
    using v_entity_type, audit._change_type(v_entity_type, 'created'), audit._change_type(v_entity_type, 'updated'),
      audit._change_type(v_entity_type, 'deleted'), old, new
  loop
    perform audit._require_actor(tg_relid);
    perform audit.write(v_events);
  end loop;
  return null;
end
$$;

comment on function audit._capture_changes() is
  'Write a config event for each row that the statement changed. Arguments: entity type, redacted columns, only '
  'columns. Raises PU403 without an actor. A statement that changes nothing writes nothing and needs no actor.';
