create function audit._unsealed_count(p_limit bigint) returns bigint
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
-- Statistics of growing columns lag behind: by them, no row is newer than the last ANALYZE. By them a transaction may
-- also seem to have written a great part of the table, which would start parallel workers.
set enable_seqscan = off
set enable_bitmapscan = off
set max_parallel_workers_per_gather = 0
as $$
declare
  v_head pg_snapshot := audit._head_snapshot();
begin
  return (
    select count(*)
    from (
      select from public.audit_log l where l.xid >= pg_snapshot_xmax(v_head)
      union all
      select from public.audit_log l where l.xid = any (array(select pg_snapshot_xip(v_head)))
      limit p_limit
    ) waiting
  );
end
$$;

comment on function audit._unsealed_count(bigint) is
  'Count the committed rows of audit_log that are in no block, up to a limit.';
