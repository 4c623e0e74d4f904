-- The first statement also locks the lanes, in the order of their keys, so that the second one sees the changes of other workers.
create function delivery._pause_lanes(
  p_tenant_ids text[],
  p_job_ids bigint[],
  p_lease_epochs integer[],
  p_outcomes text[],
  p_errors text[],
  p_durations_ms double precision[],
  p_retry_after_seconds double precision[],
  p_backoff_base_seconds double precision,
  p_backoff_max_seconds double precision,
  p_hanging_ms double precision
) returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_hangs_to_pause constant integer := 3;
  -- A probe holds one slot until its deadline once a minute, and a receiver that has recovered waits at most a minute.
  v_longest_hanging_pause constant double precision := 60;
  v_now timestamptz := core.now();
  v_lanes record;
begin
  if not p_outcomes && '{limited}' and coalesce(0 < any (p_retry_after_seconds), false) is false
    and coalesce(p_hanging_ms <= any (p_durations_ms), false) is false
  then
    return;
  end if;
  select
    array_agg(a.tenant_id) as tenant_ids, array_agg(a.channel_id) as channel_ids, array_agg(a.asked) as asked,
    array_agg(a.seconds) as seconds, array_agg(a.hangs) as hangs, array_agg(a.answered) as answered,
    array_agg(a.leased_at) as leased_ats, array_agg(a.reason) as reasons
  into v_lanes
  from (
    select
      j.tenant_id, j.channel_id,
      bool_or(r.asked) as asked,
      max(r.retry_after_seconds) as seconds,
      count(*) filter (where r.hung and r.outcome <> 'delivered') as hangs,
      bool_or(not r.hung) as answered,
      bool_or(r.hung) as hung,
      max(j.leased_at) as leased_at,
      coalesce(max(r.error) filter (where r.asked), max(r.error) filter (where r.hung)) as reason
    from (
      select
        u.*, u.outcome = 'limited' or coalesce(u.retry_after_seconds > 0, false) as asked,
        delivery._hung(u.duration_ms, p_hanging_ms) as hung
      from unnest(
        p_tenant_ids, p_job_ids, p_lease_epochs, p_outcomes, p_errors, p_durations_ms, p_retry_after_seconds
      ) as u (tenant_id, job_id, lease_epoch, outcome, error, duration_ms, retry_after_seconds)
    ) r
    cross join lateral (
      select j.tenant_id, j.channel_id, j.leased_at
      from public.notification_jobs j
      where j.tenant_id = r.tenant_id and j.job_id = r.job_id and j.lease_epoch = r.lease_epoch
        and j.lease_until is not null
      limit 1
    ) j
    group by j.tenant_id, j.channel_id
  ) a
  where a.asked or a.hung;

  insert into delivery.lanes as p (tenant_id, channel_id, paused_until)
  select a.tenant_id, a.channel_id, '-infinity'
  from unnest(v_lanes.tenant_ids, v_lanes.channel_ids) as a (tenant_id, channel_id)
  order by a.tenant_id, a.channel_id
  on conflict (tenant_id, channel_id) do update set paused_until = p.paused_until;

  update delivery.lanes p
  set
    paused_until = greatest(p.paused_until, v_now + make_interval(secs => case
      when a.asked then coalesce(
        nullif(a.seconds, 0), delivery._backoff_seconds(n.limits, p_backoff_base_seconds, p_backoff_max_seconds))
      when n.pauses then delivery._backoff_seconds(
        n.limits, p_backoff_base_seconds, least(p_backoff_max_seconds, v_longest_hanging_pause))
      else 0
    end)),
    paused_at = case when n.pauses then clock_timestamp() else l.paused_at end,
    reason = case when n.pauses then a.reason else l.reason end,
    hangs = n.hangs,
    limits = n.limits,
    deliveries = case when n.pauses or n.narrows then 0 else l.deliveries end
  from unnest(
    v_lanes.tenant_ids, v_lanes.channel_ids, v_lanes.asked, v_lanes.seconds, v_lanes.hangs, v_lanes.answered,
    v_lanes.leased_ats, v_lanes.reasons
  ) as a (tenant_id, channel_id, asked, seconds, hangs, answered, leased_at, reason)
  join delivery.lanes l on l.tenant_id = a.tenant_id and l.channel_id = a.channel_id
  cross join lateral (
    select case when a.answered then 0 else l.hangs + a.hangs end as hangs
  ) h
  cross join lateral (
    select
      a.asked or a.hangs > 0 and h.hangs >= v_hangs_to_pause as pauses,
      -- All answers were cut off at the deadline.
      not a.asked and not a.answered and a.hangs = 0 as narrows
  ) w
  cross join lateral (
    select
      h.hangs, w.pauses, w.narrows,
      -- Answers to requests that left before the latest pause belong to the same refusal.
      case
        when w.pauses then greatest(1, l.limits + (a.leased_at >= coalesce(l.paused_at, '-infinity'))::integer)
        when w.narrows then greatest(1, l.limits)
        else l.limits
      end as limits
  ) n
  where p.tenant_id = a.tenant_id and p.channel_id = a.channel_id
    -- A request that left before an operator lifted the pause says nothing about the time after it.
    and (p.lifted_at is null or a.leased_at >= p.lifted_at);
end
$$;

comment on function delivery._pause_lanes(
  text[], bigint[], integer[], text[], text[], double precision[], double precision[], double precision, double precision,
  double precision
) is
  'Pause the channels whose receivers asked for it: for Retry-After seconds, or else for the back-off of a failed attempt, '
  'longer with each pause in a row. Pause channels with three attempts in a row that ran into their deadline of p_hanging_ms, '
  'for at most a minute. A channel that delivers that slowly gets one request at a time. The caller holds the jobs'' locks.';
