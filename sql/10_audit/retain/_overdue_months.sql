create function audit._overdue_months(p_days integer)
returns table (segment date, partition_name text, due_at timestamptz, obstacle text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
-- Statistics of a growing column are always behind: by them, nothing is newer than the last ANALYZE.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_head pg_snapshot := audit._head_snapshot();
  v_recorded_at timestamptz;
  -- What audit.report_broken_log opens; until a person closes it, evidence stays.
  v_broken boolean := exists (
    select from public.alerts a
    where a.tenant_id = 'system' and a.fingerprint = 'audit:log' and a.status <> 'closed'
  );
  v_unsealed boolean;
begin
  for segment, partition_name, due_at in
    select month.segment, c.relname::text, month.ends_at + make_interval(days => p_days)
    from pg_inherits i
    join pg_class c on c.oid = i.inhrelid
    -- The bounds are a whole UTC month and stand in the name.
    cross join lateral (
      select to_date(substring(c.relname from '^audit_log_([0-9]{6})$'), 'YYYYMM')
    ) named (segment)
    cross join lateral (select named.segment, audit._segment_end(named.segment)) as month (segment, ends_at)
    where i.inhparent = 'public.audit_log'::regclass
      and p_days > 0
      and month.ends_at + make_interval(days => p_days) <= core.now()
    order by month.segment
  loop
    begin
      execute format(
        'select
          (select l.recorded_at from public.%1$I l order by l.xid desc limit 1),
          exists (select from public.%1$I l where l.xid >= $1) or exists (select from public.%1$I l where l.xid = any ($2))',
        partition_name
      )
      into v_recorded_at, v_unsealed
      using pg_snapshot_xmax(v_head), array(select pg_snapshot_xip(v_head));
    exception when undefined_table then
      continue;  -- dropped meanwhile
    end;
    -- The timestamp is the producer's word: one whose clock is behind must not get its events dropped at once.
    due_at := greatest(due_at, v_recorded_at + make_interval(days => p_days));
    if due_at <= core.now() then
      obstacle := case
        when exists (
          select from audit.holds h
          where h.released_at is null and audit._touches_segment(segment, h.starts_at, h.ends_at)
        ) then 'held'
        when v_broken then 'broken'
        when v_unsealed then 'unsealed'
      end;
      return next;
    end if;
  end loop;
end
$$;

comment on function audit._overdue_months(integer) is
  'The months of audit_log with a partition of their own that ended, and whose newest row was recorded, so many days ago or '
  'longer, the oldest first: since when they may go, and what keeps them: held, broken (the alert about the log is open), '
  'unsealed, or null for nothing. None for 0 days.';
