-- The definitions equal the output of pg_get_triggerdef, so that audit._tracking_faults can compare the two. The
-- settings keep both independent of the session.
--
-- Transition tables and column conditions exclude each other. Where only some columns matter, a row trigger whose
-- condition is false costs a busy table next to nothing, and one that is true costs an event a row. The condition
-- compares images, because json has no equality and a case-insensitive collation would hide a change. It calls a
-- function, because Postgres writes row(…)::record in a condition without its cast, and row(a) *<> row(b) then means a
-- *<> b, which no type has. Such a trigger cannot be restored from a dump.
create function audit._tracking_triggers(p_tracked audit.tracked_tables)
returns table (name text, definition text, description text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
set standard_conforming_strings = on
as $$
declare
  v_by_column constant boolean := p_tracked.only_columns is not null;
  v_arguments constant text[] := (
    select array_agg('''' || replace(a.value, '''', '''''') || '''' order by a.place)
    from unnest(array[
      p_tracked.entity_type, p_tracked.redacted_columns::text, coalesce(p_tracked.only_columns::text, '')
    ]) with ordinality as a (value, place));
  v_table text;
  v_condition text;
begin
  select format('%I.%I', n.nspname, c.relname) into v_table
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.oid = to_regclass(p_tracked.table_name);
  -- If one of the columns is dropped or renamed the trigger always fires, so that its function refuses the change.
  select case
      when count(*) < (select count(distinct c) from unnest(p_tracked.only_columns) c) then ''
      else format(
        ' WHEN (record_image_ne(ROW(%s), ROW(%s)))',
        string_agg(format('old.%I', a.attname), ', ' order by a.attnum),
        string_agg(format('new.%I', a.attname), ', ' order by a.attnum))
    end
  into v_condition
  from pg_attribute a
  where a.attrelid = to_regclass(p_tracked.table_name)
    and a.attname = any (p_tracked.only_columns)
    and a.attnum > 0
    and not a.attisdropped;

  return query
  select t.name, format('CREATE TRIGGER %s %s ON %s %s EXECUTE FUNCTION audit._capture_changes(%s)',
      t.name, t.event, v_table, t.scope, array_to_string(v_arguments, ', ')),
    'Makes each change an audit event.'
  from (
    values
      ('track_insert', 'AFTER INSERT', 'REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT', false),
      ('track_update', 'AFTER UPDATE', 'REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT', false),
      ('track_delete', 'AFTER DELETE', 'REFERENCING OLD TABLE AS old_rows FOR EACH STATEMENT', false),
      ('track_update', 'AFTER UPDATE', 'FOR EACH ROW' || v_condition, true)
  ) as t (name, event, scope, by_column)
  where t.by_column = v_by_column
  union all
  select 'track_truncate', format(
      'CREATE TRIGGER track_truncate BEFORE TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION audit._capture_truncate(%s)',
      v_table, v_arguments[1]),
    'Makes TRUNCATE an audit event.';
end
$$;

comment on function audit._tracking_triggers(audit.tracked_tables) is
  'Return the triggers of a tracked table as pg_get_triggerdef writes them, with their comments.';
