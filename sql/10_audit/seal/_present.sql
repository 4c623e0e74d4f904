-- Stable, so that pg_current_snapshot() is the snapshot of the caller's statement.
create function audit._present() returns pg_snapshot
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_snapshot constant pg_snapshot := pg_current_snapshot();
  v_base constant bigint := audit._epoch() << 48;
begin
  if v_base = 0 then
    return v_snapshot;
  end if;
  return format(
    '%s:%s:%s',
    v_base + pg_snapshot_xmin(v_snapshot)::text::bigint,
    v_base + pg_snapshot_xmax(v_snapshot)::text::bigint,
    (
      select string_agg((v_base + open.xid::text::bigint)::text, ',' order by open.xid)
      from pg_snapshot_xip(v_snapshot) as open (xid)
    )
  )::pg_snapshot;
end
$$;

comment on function audit._present() is
  'Return the present snapshot in the numbers of audit_log.xid. It sees every row of earlier epochs.';
