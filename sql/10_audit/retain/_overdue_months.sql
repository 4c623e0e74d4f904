create function audit._overdue_months(p_days integer)
returns table (segment date, partition_name text, due_at timestamptz, obstacle text)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
-- Statistics of growing columns lag behind: by them, no row is newer than the last ANALYZE.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_head pg_snapshot := audit._head_snapshot();
  v_recorded_at timestamptz;
  -- audit.report_broken_log opens this alert. Until a person closes it, no evidence is dropped.
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
    -- The name holds the bounds, a whole UTC month.
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
    -- The producer sets the timestamp. Events of a producer whose clock is behind must not be dropped at once.
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
  'Return the months of audit_log that have a partition of their own and whose end and newest row are at least that '
  'many days old, oldest first. due_at is the time since when a month may be dropped. obstacle is held, broken (the '
  'alert about the log is open), unsealed, or null. Returns none for 0 days.';
