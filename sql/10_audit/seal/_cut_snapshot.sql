-- A snapshot is a list of numbers, so one that sees less than the present can be composed: it sees those transactions of
-- the given snapshot that come before a cut. A transaction is never cut in two.
create function audit._cut_snapshot(p_previous pg_snapshot, p_snapshot pg_snapshot, p_limit integer)
returns pg_snapshot
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first xid8;
  v_cut xid8;
begin
  select l.xid into v_cut
  from public.audit_log l
  where l.xid >= pg_snapshot_xmax(p_previous)
  order by l.xid
  offset p_limit
  limit 1;
  if v_cut is null or v_cut >= pg_snapshot_xmax(p_snapshot) then
    return p_snapshot;
  end if;
  select min(l.xid) into v_first from public.audit_log l where l.xid >= pg_snapshot_xmax(p_previous);
  if v_cut = v_first then
    v_cut := (v_cut::text::numeric + 1)::text::xid8;
  end if;
  return format(
    '%s:%s:%s',
    least(pg_snapshot_xmin(p_snapshot), v_cut),
    v_cut,
    (select string_agg(open.xid::text, ',' order by open.xid) from pg_snapshot_xip(p_snapshot) as open (xid) where open.xid < v_cut)
  )::pg_snapshot;
end
$$;

comment on function audit._cut_snapshot(pg_snapshot, pg_snapshot, integer) is
  'Return the snapshot, or, if it sees more than p_limit rows beyond the previous one, a snapshot that sees about '
  'p_limit.';
