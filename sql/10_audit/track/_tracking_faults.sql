-- A table that is gone or cannot be tracked any more has no faults: the next layer removes it from the list, with an
-- event. A table that lacks a tracked column has none either: its trigger refuses changes of that column until
-- audit.track is called again, and a trigger made anew would refuse every change.
create function audit._tracking_faults() returns table (table_name text, trigger_name text)
language plpgsql stable
set search_path = pg_catalog, pg_temp
set quote_all_identifiers = off
set standard_conforming_strings = on
as $$
begin
  return query
  select w.table_name, e.name
  from audit.tracked_tables w
  cross join lateral audit._tracking_triggers(w) e
  where to_regclass(w.table_name) is not null
    and audit._tracking_fault(to_regclass(w.table_name)) is null
    and not exists (
      select from unnest(w.only_columns) as c (name)
      where not exists (
        select from pg_attribute a
        where a.attrelid = to_regclass(w.table_name) and a.attname = c.name and a.attnum > 0 and not a.attisdropped
      )
    )
    and not exists (
      select from pg_trigger t
      where t.tgrelid = to_regclass(w.table_name)
        and t.tgname = e.name
        and t.tgenabled in ('O', 'A')
        and pg_get_triggerdef(t.oid) = e.definition
        and obj_description(t.oid, 'pg_trigger') = e.description
    )
  order by 1, 2;
end
$$;

comment on function audit._tracking_faults() is
  'Return the triggers of tracked tables that are missing, disabled or different from those that audit.track creates.';
