-- What the first snapshot did not see is what began after it and what was in progress then: two look-ups in the index of
-- xid, however long a transaction stays open. Plain, so that it is inlined and a caller's bounds on timestamp choose the
-- partitions. The list comes from a function: a join to it may become a hash join, which reads the whole table, and a
-- sub-select in its place is computed once for all outer rows of a lateral join over a partitioned table (Postgres 18.6).
create function audit._rows_between(p_previous pg_snapshot, p_snapshot pg_snapshot) returns setof public.audit_log
language sql stable parallel safe rows 10000
begin atomic
  select l.*
  from public.audit_log l
  where l.xid >= pg_snapshot_xmax(p_previous)
    and l.xid < pg_snapshot_xmax(p_snapshot)
    and pg_visible_in_snapshot(l.xid, p_snapshot)
  union all
  select l.*
  from public.audit_log l
  where l.xid = any (audit._open_transactions(p_previous))
    and pg_visible_in_snapshot(l.xid, p_snapshot);
end;

comment on function audit._rows_between(pg_snapshot, pg_snapshot) is
  'Rows whose transaction the second snapshot sees and the first does not.';
