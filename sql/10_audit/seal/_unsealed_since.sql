create function audit._unsealed_since() returns timestamptz
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
-- By statistics a transaction may seem to have written a great part of the table, which would start parallel workers.
set enable_seqscan = off
set enable_bitmapscan = off
set max_parallel_workers_per_gather = 0
as $$
declare
  v_head pg_snapshot := audit._head_snapshot();
begin
  return least(
    (select l.recorded_at from public.audit_log l where l.xid >= pg_snapshot_xmax(v_head) order by l.xid limit 1),
    (select min(l.recorded_at) from public.audit_log l where l.xid = any (array(select pg_snapshot_xip(v_head))))
  );
end
$$;

comment on function audit._unsealed_since() is
  'Return when the oldest committed row of audit_log that is in no block was written; null if all are sealed.';
