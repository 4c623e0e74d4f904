-- Compares names instead of casting to regclass: a cast runs with the rights of the reader, which may lack USAGE on
-- public.
create view metrics.tracked_tables_unguarded as
select count(*) as value
from audit.tracked_tables w
left join (
  select array[s.nspname::text, c.relname::text] as name, count(*) as triggers
  from pg_trigger t
  join pg_class c on c.oid = t.tgrelid
  join pg_namespace s on s.oid = c.relnamespace
  join pg_proc p on p.oid = t.tgfoid
  join pg_namespace n on n.oid = p.pronamespace
  where t.tgenabled in ('O', 'A') and n.nspname = 'audit' and p.proname in ('_capture_changes', '_capture_truncate')
  group by s.nspname, c.relname
) g on g.name = parse_ident(w.table_name)
where coalesce(g.triggers, 0) < case when w.only_columns is null then 4 else 2 end;

comment on view metrics.tracked_tables_unguarded is
  'Tracked tables with a missing or disabled trigger, so that changes leave no event.';
