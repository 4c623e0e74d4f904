create function audit.track(
  p_table regclass, entity text default null, redact text[] default '{}', only_columns text[] default null
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
  v_old audit.tracked_tables;
  v_new audit.tracked_tables;
  v_key text;
begin
  select format('%I.%I', n.nspname, c.relname) into v_name
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.oid = p_table;
  if audit._tracking_fault(p_table) is not null then
    raise exception using errcode = 'PU422', message = format('%s %s', v_name, audit._tracking_fault(p_table));
  end if;
  -- Checks that the columns exist.
  perform audit._change_query(p_table, 'old_rows', 'new_rows', coalesce(track.redact, '{}'), track.only_columns);
  select k.name into v_key
  from unnest(audit._key_columns(p_table) || array['tenant_id']) as k (name)
  where k.name = any (track.redact);
  if v_key is not null or cardinality(track.only_columns) = 0 then
    raise exception using
      errcode = 'PU422',
      message = case
        when v_key is null then 'only_columns names no column'
        else format('%s of %s cannot be redacted, because it identifies the row', v_key, v_name)
      end;
  end if;

  -- Calls that run at once take turns.
  lock table audit.tracked_tables in share row exclusive mode;
  select t.* into v_old from audit.tracked_tables t where t.table_name = v_name;
  v_new := row(v_name, coalesce(track.entity, v_old.entity_type, (parse_ident(v_name))[2]),
    coalesce(track.redact, '{}'), track.only_columns);
  if v_new.entity_type = '' or exists (
    select from audit.tracked_tables t where t.entity_type = v_new.entity_type and t.table_name <> v_name
  ) then
    raise exception using errcode = 'PU409', message = format(
      'entity %L is empty or names the rows of another table: choose a different one with entity => …', v_new.entity_type);
  end if;
  insert into audit.tracked_tables select v_new.*
  on conflict (table_name) do update
  set entity_type = excluded.entity_type, redacted_columns = excluded.redacted_columns, only_columns = excluded.only_columns;
  perform audit._install_tracking(v_new);
  if v_new is distinct from v_old then
    perform audit.write(array[audit.event(
      p_tenant_id => 'system',
      p_event_type => 'config.table_tracked',
      p_entity_type => 'table',
      p_entity_id => v_name,
      p_message => format('changes of table %s are audited from now on', v_name),
      p_details => to_jsonb(v_new))]);
  end if;
end
$$;

comment on function audit.track(regclass, text, text[], text[]) is
  'Make every change of a table''s rows an audit event, also across migrations. A repeat changes nothing; other '
  'arguments replace the former ones. entity: name of a row in events. redact: columns whose values are never written. '
  'only_columns: the only columns that matter, and only if an UPDATE changes them. Raises PU422 for a table that cannot '
  'be tracked.';
