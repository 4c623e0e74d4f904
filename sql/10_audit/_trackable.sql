create function audit._trackable(p_table regclass) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_name text;
  v_fault text;
begin
  select
    format('%I.%I', n.nspname, c.relname),
    case
      when n.nspname in ('audit', 'pg_catalog', 'information_schema')
        or (n.nspname, c.relname) in (('public', 'sql_layer'), ('public', 'alembic_version'))
        or c.oid in (select relid from pg_partition_tree('public.audit_log'))
        then 'is a table of the trail or of the migrations'
      when c.relkind <> 'r' or c.relispartition or c.relpersistence = 't'
        or exists (select from pg_inherits i where c.oid in (i.inhparent, i.inhrelid))
        then 'is no ordinary table'
      when not pg_has_role(c.relowner, 'usage')
        then format('belongs to %I: a migration, which acts as %I, could not put its triggers back', c.relowner::regrole, current_user)
    end
  into v_name, v_fault
  from pg_class c
  join pg_namespace n on n.oid = c.relnamespace
  where c.oid = p_table;
  if v_fault is not null then
    raise exception using errcode = 'PU422', message = format('%s %s', v_name, v_fault);
  end if;
  return v_name;
end
$$;

comment on function audit._trackable(regclass) is 'Schema-qualified name of a table that can be tracked; PU422 says why not.';
