create function audit._head_snapshot() returns pg_snapshot
language sql stable
set search_path = pg_catalog, pg_temp
return coalesce(
  (select b.snapshot from audit.blocks b order by b.block_no desc limit 1),
  -- Sees nothing: the smallest transaction number there is, is 3.
  '1:1:'::pg_snapshot
);

comment on function audit._head_snapshot() is 'What is sealed: every row whose transaction this snapshot sees.';
