create function audit._head_snapshot() returns pg_snapshot
language sql stable
set search_path = pg_catalog, pg_temp
return coalesce(
  (select b.snapshot from audit.blocks b order by b.block_no desc limit 1),
  -- Sees no row, because the smallest transaction number is 3.
  '1:1:'::pg_snapshot
);

comment on function audit._head_snapshot() is 'Return the snapshot of the sealed log. It sees exactly the sealed rows.';
