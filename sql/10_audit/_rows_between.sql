-- What the first snapshot did not see is what began after it and what was in progress then: two look-ups in the index of
-- xid, however long a transaction stays open. Plain, so that it is inlined and a caller's bounds on timestamp choose the
-- partitions.
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
  -- Not "= any (array(select …))": in a lateral join over a partitioned table, Postgres 18 computes that array for the
  -- first outer row and keeps it for all others.
  from pg_snapshot_xip(p_previous) as open (xid)
  join public.audit_log l on l.xid = open.xid
  where pg_visible_in_snapshot(l.xid, p_snapshot);
end;

comment on function audit._rows_between(pg_snapshot, pg_snapshot) is
  'Rows whose transaction the second snapshot sees and the first does not.';
