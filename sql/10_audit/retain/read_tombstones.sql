create function audit.read_tombstones() returns table (segment date, last_block bigint, note text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select t.segment, t.last_block, t.note from audit.tombstones t order by t.released_at, t.segment, t.last_block;
end;

comment on function audit.read_tombstones() is 'Return every tombstone in the order of release.';
