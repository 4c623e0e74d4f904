create function audit.read_entries() returns setof text
language sql stable security definer rows 10
set search_path = pg_catalog, pg_temp
begin atomic
  select b.entry from audit.blocks b where b.entry is not null order by b.block_no;
end;

comment on function audit.read_entries() is 'Return the signed notes of all entries of the log, in order.';
