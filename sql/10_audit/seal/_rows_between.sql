-- The first snapshot does not see the transactions that began after it or were in progress then. Both are look-ups in
-- the index of xid, however long a transaction stays open. Without SET, so that it can be inlined and the caller's
-- bounds on timestamp choose the partitions.
--
-- The list of open transactions comes from a function. A join to it may become a hash join, which reads the whole table,
-- and a sub-select in its place is computed once for all outer rows of a lateral join over a partitioned table (Postgres
-- 18.6).
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
  'Return the rows whose transaction the second snapshot sees and the first does not.';
