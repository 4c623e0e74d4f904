create function delivery._recover_lanes(
  p_tenant_ids text[],
  p_job_ids bigint[],
  p_lease_epochs integer[],
  p_outcomes text[]
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
  if not p_outcomes && '{delivered}' or not exists (select from delivery.lanes p where p.limits > 0) then
    return;
  end if;
  with delivered as materialized (
    select j.tenant_id, j.channel_id, j.leased_at
    from unnest(p_tenant_ids, p_job_ids, p_lease_epochs, p_outcomes) as r (tenant_id, job_id, lease_epoch, outcome)
    cross join lateral (
      select j.tenant_id, j.channel_id, j.leased_at
      from public.notification_jobs j
      where j.tenant_id = r.tenant_id and j.job_id = r.job_id and j.lease_epoch = r.lease_epoch and j.state = 'delivered'
      limit 1
    ) j
    where r.outcome = 'delivered'
  ), recovering as materialized (
    select p.tenant_id, p.channel_id
    from delivery.lanes p
    where p.limits > 0
      and exists (select from delivered d where d.tenant_id = p.tenant_id and d.channel_id = p.channel_id)
    -- A lane that another worker pauses or counts for just now is left out: waiting while holding others could deadlock.
    for update skip locked
  )
  update delivery.lanes p
  set
    deliveries = p.deliveries + d.jobs,
    limits = case when p.deliveries + d.jobs >= v_open_after then 0 else 1 end
  from recovering r
  cross join lateral (
    select count(*)::integer as jobs
    from delivered d
    join delivery.lanes l on l.tenant_id = d.tenant_id and l.channel_id = d.channel_id
    where d.tenant_id = r.tenant_id and d.channel_id = r.channel_id
      and d.leased_at >= l.paused_until  -- what left before the pause is no sign of its end
  ) d
  where p.tenant_id = r.tenant_id and p.channel_id = r.channel_id and d.jobs > 0;
end
$$;

comment on function delivery._recover_lanes(text[], bigint[], integer[], text[]) is
  'Let channels whose pause is over send one more at a time for each delivery since, and open them after 64.';
