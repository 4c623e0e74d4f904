create function audit._tracking_fault(p_table regclass) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return (
  select case
    when n.nspname in ('audit', 'pg_catalog', 'information_schema')
      or (n.nspname, c.relname) in (('public', 'sql_layer'), ('public', 'alembic_version'))
      or c.oid in (select relid from pg_partition_tree('public.audit_log'))
      then 'is a table of the trail or of the migrations'
    -- A statement on a parent fires only the parent's triggers.
    when c.relkind <> 'r' or c.relispartition or c.relpersistence = 't'
      or exists (select from pg_inherits i where c.oid in (i.inhparent, i.inhrelid))
      then 'is no ordinary table'
    when not pg_has_role(c.relowner, 'usage')
      then format(
        'belongs to %s: a migration, which acts as %s, could not put its triggers back', c.relowner::regrole, current_user)
  end
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.oid = p_table
);

comment on function audit._tracking_fault(regclass) is
  'Return the reason for which a table cannot be tracked; null if it can.';
