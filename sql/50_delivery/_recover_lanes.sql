create function delivery._recover_lanes(
  p_tenant_ids text[],
  p_job_ids bigint[],
  p_lease_epochs integer[],
  p_outcomes text[],
  p_durations_ms double precision[],
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
  v_open_after constant integer := 64;
begin
  if not exists (select from delivery.lanes p where p.limits > 0 or p.hangs > 0) then
    return;
  end if;
  with answered as materialized (
    select j.tenant_id, j.channel_id, j.leased_at, r.outcome
    from unnest(p_tenant_ids, p_job_ids, p_lease_epochs, p_outcomes, p_durations_ms)
      as r (tenant_id, job_id, lease_epoch, outcome, duration_ms)
    cross join lateral (
      select j.tenant_id, j.channel_id, j.leased_at
      from public.notification_jobs j
      where j.tenant_id = r.tenant_id and j.job_id = r.job_id and j.lease_epoch = r.lease_epoch and j.lease_until is null
      limit 1
    ) j
    where r.duration_ms is not null and not delivery._hung(r.duration_ms, p_hanging_ms)
  ), recovering as materialized (
    select p.tenant_id, p.channel_id
    from delivery.lanes p
    where (p.limits > 0 or p.hangs > 0)
      and exists (select from answered d where d.tenant_id = p.tenant_id and d.channel_id = p.channel_id)
    -- A lane that another worker has locked is skipped: waiting for it while holding others could deadlock.
    for update skip locked
  )
  update delivery.lanes p
  set
    deliveries = p.deliveries + d.jobs,
    limits = case when d.jobs = 0 then p.limits when p.deliveries + d.jobs >= v_open_after then 0 else least(p.limits, 1) end,
    hangs = 0
  from recovering r
  cross join lateral (
    select count(*) filter (where d.outcome = 'delivered')::integer as jobs
    from answered d
    join delivery.lanes l on l.tenant_id = d.tenant_id and l.channel_id = d.channel_id
    where d.tenant_id = r.tenant_id and d.channel_id = r.channel_id
      and d.leased_at >= l.paused_until  -- a request from before the pause does not show its end
  ) d
  where p.tenant_id = r.tenant_id and p.channel_id = r.channel_id and (d.jobs > 0 or p.hangs > 0);
end
$$;

comment on function delivery._recover_lanes(
  text[], bigint[], integer[], text[], double precision[], double precision
) is
  'Allow channels whose pause is over one more request at a time for each delivery since, and lift the bound after 64 '
  'deliveries. An answer before the deadline resets the count of attempts that hung.';
