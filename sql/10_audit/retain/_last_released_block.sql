create function audit._last_released_block(p_segment date) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
return coalesce((select max(t.last_block) from audit.tombstones t where t.segment = p_segment), -1);

comment on function audit._last_released_block(date) is
  'Return the last block of a month that a tombstone covers, -1 if there is none.';
