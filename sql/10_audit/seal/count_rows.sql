-- Stable, so that audit._present() is the snapshot by which the rows are read.
create function audit.count_rows(p_sealed text)
returns table (
  segment date,
  sealed bigint,
  unsealed bigint,
  unsealed_since timestamptz,
  impossible bigint,
  impossible_event text
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_sealed pg_snapshot := p_sealed;
  v_head pg_snapshot := audit._head_snapshot();
  v_present pg_snapshot := audit._present();
begin
  return query
    select
      r.segment,
      count(*) filter (where r.is_sealed),
      count(*) filter (where r.waits and r.is_possible),
      min(r.recorded_at) filter (where r.waits and r.is_possible),
      count(*) filter (where not r.is_possible),
      min(r.event_id::text) filter (where not r.is_possible)
    from (
      select
        audit._segment(l.timestamp) as segment,
        l.recorded_at,
        l.event_id,
        pg_visible_in_snapshot(l.xid, v_sealed) as is_sealed,
        not pg_visible_in_snapshot(l.xid, v_head) as waits,
        pg_visible_in_snapshot(l.xid, v_present) as is_possible
      from public.audit_log l
    ) r
    group by r.segment
    order by r.segment;
end
$$;

comment on function audit.count_rows(text) is
  'Count the rows of each month: those that the snapshot sees, those that wait for the sealer, and the impossible ones, '
  'which name a transaction that has not ended or not begun.';
