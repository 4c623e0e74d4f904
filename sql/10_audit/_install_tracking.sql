-- Transition tables and column conditions exclude each other: where only some columns matter, a row trigger whose condition
-- is false costs a busy table next to nothing, and one that is true costs an event a row.
create function audit._install_tracking(p_tracked audit.tracked_tables) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_table constant regclass := p_tracked.table_name::regclass;
  v_arguments constant text := format(
    '%L, %L, %L', p_tracked.entity_type, p_tracked.redacted_columns, coalesce(p_tracked.only_columns::text, ''));
  v_trigger record;
begin
  perform audit._drop_tracking(v_table);
  for v_trigger in
    select t.*
    from (
      values
        ('track_insert', 'after insert', 'referencing new table as new_rows', false),
        ('track_update', 'after update', 'referencing old table as old_rows new table as new_rows', false),
        ('track_delete', 'after delete', 'referencing old table as old_rows', false),
        ('track_update', 'after update', (
          -- Without any of its columns the trigger fires always, to say that they are gone.
          select case
            when count(*) = 0 then 'for each row'
            else format('for each row when ((row(%s))::record *<> (row(%s))::record)',
              string_agg(format('old.%I', a.attname), ', '), string_agg(format('new.%I', a.attname), ', '))
          end
          from pg_attribute a
          where a.attrelid = v_table and a.attname = any (p_tracked.only_columns) and a.attnum > 0 and not a.attisdropped
        ), true)
    ) as t (name, event, scope, only_columns)
    where t.only_columns = (p_tracked.only_columns is not null)
  loop
    execute format('create trigger %I %s on %s %s execute function audit._capture_changes(%s)',
      v_trigger.name, v_trigger.event, v_table, v_trigger.scope, v_arguments);
    execute format('comment on trigger %I on %s is %L', v_trigger.name, v_table, 'Makes each change an audit event.');
  end loop;
  execute format('create trigger track_truncate before truncate on %s execute function audit._capture_truncate(%L)',
    v_table, p_tracked.entity_type);
  execute format('comment on trigger track_truncate on %s is %L', v_table, 'Makes TRUNCATE an audit event.');
end
$$;

comment on function audit._install_tracking(audit.tracked_tables) is
  'Puts the triggers of a tracked table on it, in place of those it has.';
