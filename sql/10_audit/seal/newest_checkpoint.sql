create function audit.newest_checkpoint() returns table (tree_size bigint, note text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select c.tree_size, c.note from audit.checkpoints c order by c.tree_size desc limit 1;
end;

comment on function audit.newest_checkpoint() is 'Return the newest signed checkpoint; no row while nothing is sealed.';
