-- The names of table and column come from ops.prune, never from a caller.
create function ops._prune_rows(p_table regclass, p_column name, p_before timestamptz, p_limit integer) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removed integer;
begin
  execute format(
    'delete from %1$s
    where ctid = any(array(
      select old.ctid from %1$s old where old.%2$I < $1 order by old.%2$I limit $2 for update skip locked
    ))',
    p_table, p_column
  )
  using p_before, p_limit;
  get diagnostics v_removed = row_count;
  return v_removed;
end
$$;

comment on function ops._prune_rows(regclass, name, timestamptz, integer) is
  'Delete the oldest rows whose time column lies before p_before, at most p_limit. Return their number.';
