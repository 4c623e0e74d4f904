-- Three statements with separate snapshots find candidates, lock their channels, and take jobs under the locks. In one
-- statement the count of a channel's jobs in flight would be older than the lock that protects it, and two claimers together
-- would exceed the channel's limit.
create function delivery.claim(
  p_worker text,
  p_limit integer,
  p_lease_seconds double precision,
  p_channel_limit integer default 8,
  p_most integer default null
) returns table (
  tenant_id text,
  job_id bigint,
  lease_epoch integer,
  attempts smallint,
  max_attempts smallint,
  alert_id bigint,
  channel_id bigint,
  channel_name text,
  channel_kind text,
  config jsonb,
  kind text,
  idempotency_key uuid,
  payload jsonb,
  trace_id text
)
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
#variable_conflict use_column
declare
  v_now timestamptz := core.now();
  v_tenant_ids text[];
  v_channel_ids bigint[];
  v_job_ids bigint[];
  v_places bigint[];
  v_fates text[];
  v_buried integer := 0;
  v_claimed integer := 0;
begin
  -- Most claims find an empty queue, which one probe shows.
  if not exists (
    select from public.notification_jobs j
    where j.state = 'pending'
    order by j.tenant_id, j.channel_id, j.run_at limit 1
  ) then
    return;
  end if;
  select array_agg(c.tenant_id), array_agg(c.channel_id), array_agg(c.job_id), array_agg(c.place), array_agg(c.fate)
  into v_tenant_ids, v_channel_ids, v_job_ids, v_places, v_fates
  from delivery._candidates(v_now, p_limit, p_channel_limit, p_worker) c;
  if v_job_ids is null then
    return;
  end if;
  if v_fates && '{channel_deleted,channel_disabled}' then
    v_buried := delivery._bury(v_tenant_ids, v_job_ids, array_replace(v_fates, 'superseded', null));
  end if;
  select array_agg(c.tenant_id order by c.turn), array_agg(c.channel_id order by c.turn), array_agg(c.job_id order by c.turn),
    array_agg(c.place order by c.turn), array_agg(c.fate order by c.turn)
  into v_tenant_ids, v_channel_ids, v_job_ids, v_places, v_fates
  from (
    select c.*
    from unnest(v_tenant_ids, v_channel_ids, v_job_ids, v_places, v_fates)
      with ordinality as c (tenant_id, channel_id, job_id, place, fate, turn)
    join public.notification_channels n on n.tenant_id = c.tenant_id and n.channel_id = c.channel_id
    where n.enabled and coalesce(c.fate, 'superseded') = 'superseded'
    for no key update of n skip locked
  ) c;
  -- Redriving takes the channel's lock as well, so the beginning cannot return meanwhile.
  if v_fates && '{superseded}' then
    v_buried := v_buried + delivery._bury(v_tenant_ids, v_job_ids, v_fates);
  end if;
  return query
  with candidate as materialized (
    select l.place
    -- This is cut after the locks: jobs that are given up, or whose channel another session has locked, must not take the
    -- place of jobs that can go.
    from (
      select c.*
      from unnest(v_tenant_ids, v_channel_ids, v_job_ids, v_places, v_fates)
        with ordinality as c (tenant_id, channel_id, job_id, place, fate, turn)
      where c.fate is null
      order by c.turn
      limit p_most
    ) c
    left join delivery._busy_channels() f on f.tenant_id = c.tenant_id and f.channel_id = c.channel_id
    left join delivery.lanes p on p.tenant_id = c.tenant_id and p.channel_id = c.channel_id
    -- Each candidate is one look-up by key. The plan of a join would depend on statistics.
    cross join lateral (
      select j.ctid as place, j.subject
      from public.notification_jobs j
      where j.tenant_id = c.tenant_id and j.job_id = c.job_id
        and j.lease_until is null and j.finished_at is null and j.run_at <= v_now
      for update skip locked
    ) l
    where c.place <= delivery._allowed_in_flight(p.limits, p.deliveries, p_channel_limit) - coalesce(f.jobs, 0)
      and coalesce(p.paused_until, '-infinity') <= v_now
      -- This is checked again, because a dead job may have been redriven in between. Redriving holds the channel's lock.
      -- A limited sub-select is a probe for each candidate; not exists would become a join over all that waits.
      and (
        select true
        from public.notification_jobs e
        where e.tenant_id = c.tenant_id and e.subject = l.subject and e.channel_id = c.channel_id
          and e.job_id < c.job_id and e.state in ('pending', 'leased')
        limit 1
      ) is null
  ), claimed as (
    update public.notification_jobs j
    set
      state = 'leased',
      attempts = j.attempts + 1,
      lease_epoch = j.lease_epoch + 1,
      lease_until = v_now + make_interval(secs => least(p_lease_seconds, 600)),
      leased_by = p_worker,
      leased_at = clock_timestamp()  -- read after the channel; lifting a pause compares with it
    from candidate c
    where j.ctid = c.place  -- a row that moved since this statement began is left to the next call
    returning j.*
  )
  select
    j.tenant_id, j.job_id, j.lease_epoch, j.attempts, j.max_attempts, j.alert_id, j.channel_id,
    n.name, n.kind, n.config, j.kind, j.idempotency_key, j.payload, j.trace_id
  from claimed j
  join public.notification_channels n on n.tenant_id = j.tenant_id and n.channel_id = j.channel_id
  order by j.run_at, j.job_id;
  get diagnostics v_claimed = row_count;
  -- There may be more jobs, for the next call or for another worker that found these channels locked.
  if v_claimed = least(p_limit, p_most) or v_buried > 0 or cardinality(array_positions(v_fates, null)) > p_most then
    perform core.notify('pulse_delivery');
  end if;
end
$$;

comment on function delivery.claim(text, integer, double precision, integer, integer) is
  'Lease at most p_limit due jobs to the worker for p_lease_seconds, at most 600, and return them with their channel, secrets '
  'included. p_limit is the number of free slots. Jobs of one tenant take at most half of a worker''s slots while another tenant '
  'has a channel. At most p_most jobs are leased, so that a worker starts few requests before its next look. Only the oldest '
  'live job of a subject and channel is leased. A channel has at most p_channel_limit jobs in flight over all workers. A paused '
  'channel gets no job, then one probe. Jobs of a disabled or deleted channel and superseded jobs are given up.';
