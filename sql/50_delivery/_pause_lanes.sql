-- The first statement also locks the lanes, in the order of their keys, so that the second sees what other workers set.
create function delivery._pause_lanes(
  p_tenant_ids text[],
  p_job_ids bigint[],
  p_lease_epochs integer[],
  p_outcomes text[],
  p_errors text[],
  p_retry_after_seconds double precision[],
  p_backoff_base_seconds double precision,
  p_backoff_max_seconds double precision
) returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now timestamptz := core.now();
  v_tenant_ids text[];
  v_channel_ids bigint[];
  v_seconds double precision[];
  v_leased_ats timestamptz[];
  v_reasons text[];
begin
  if not p_outcomes && '{limited}' and coalesce(0 < any (p_retry_after_seconds), false) is false then
    return;
  end if;
  select
    array_agg(a.tenant_id), array_agg(a.channel_id), array_agg(a.seconds), array_agg(a.leased_at), array_agg(a.reason)
  into v_tenant_ids, v_channel_ids, v_seconds, v_leased_ats, v_reasons
  from (
    select
      j.tenant_id, j.channel_id, max(r.retry_after_seconds) as seconds, max(j.leased_at) as leased_at, max(r.error) as reason
    from unnest(p_tenant_ids, p_job_ids, p_lease_epochs, p_outcomes, p_errors, p_retry_after_seconds)
      as r (tenant_id, job_id, lease_epoch, outcome, error, retry_after_seconds)
    cross join lateral (
      select j.tenant_id, j.channel_id, j.leased_at
      from public.notification_jobs j
      where j.tenant_id = r.tenant_id and j.job_id = r.job_id and j.lease_epoch = r.lease_epoch
        and j.lease_until is not null
      limit 1
    ) j
    where r.outcome = 'limited' or r.retry_after_seconds > 0
    group by j.tenant_id, j.channel_id
  ) a;

  insert into delivery.lanes as p (tenant_id, channel_id, paused_until)
  select a.tenant_id, a.channel_id, '-infinity'
  from unnest(v_tenant_ids, v_channel_ids) as a (tenant_id, channel_id)
  order by a.tenant_id, a.channel_id
  on conflict (tenant_id, channel_id) do update set paused_until = p.paused_until;

  update delivery.lanes p
  set
    paused_until = greatest(p.paused_until, v_now + make_interval(secs => coalesce(
      nullif(a.seconds, 0), delivery._backoff_seconds(n.limits, p_backoff_base_seconds, p_backoff_max_seconds)))),
    paused_at = clock_timestamp(),
    reason = a.reason,
    limits = n.limits,
    deliveries = 0
  from unnest(v_tenant_ids, v_channel_ids, v_seconds, v_leased_ats, v_reasons)
    as a (tenant_id, channel_id, seconds, leased_at, reason)
  join delivery.lanes l on l.tenant_id = a.tenant_id and l.channel_id = a.channel_id
  cross join lateral (
    -- Answers to requests that left before the latest pause belong to the same refusal.
    select greatest(1, l.limits + (a.leased_at >= coalesce(l.paused_at, '-infinity'))::integer) as limits
  ) n
  where p.tenant_id = a.tenant_id and p.channel_id = a.channel_id
    -- A request that left before a person lifted the pause says nothing about the time after it.
    and (p.lifted_at is null or a.leased_at >= p.lifted_at);
end
$$;

comment on function delivery._pause_lanes(
  text[], bigint[], integer[], text[], text[], double precision[], double precision, double precision
) is
  'Pause the channels whose receivers asked for it: for Retry-After seconds, or as long as a failed attempt waits, longer '
  'with each pause in a row. The jobs are locked by the caller.';
