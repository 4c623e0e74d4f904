create function audit._open_transactions(p_snapshot pg_snapshot) returns xid8[]
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return array(select pg_snapshot_xip(p_snapshot));

comment on function audit._open_transactions(pg_snapshot) is
  'Return the transactions that were in progress when the snapshot was taken.';
