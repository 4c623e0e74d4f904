-- Only the holder of the current lease changes a job: a worker whose lease has expired gets fewer ids back.
create function delivery.finish(
  p_tenant_ids text[],
  p_job_ids bigint[],
  p_lease_epochs integer[],
  p_outcomes text[],
  p_status_codes integer[],
  p_errors text[],
  p_started_ats timestamptz[],
  p_durations_ms double precision[],
  p_retry_after_seconds double precision[],
  p_backoff_base_seconds double precision default 5,
  p_backoff_max_seconds double precision default 1800,
  p_limited_max_seconds double precision default 86400,
  p_hanging_ms double precision default 9000
) returns table (
  job_id bigint,
  state text,
  run_at timestamptz
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
  v_settled record;
begin
  v_settled := delivery._settle(
    p_tenant_ids, p_job_ids, p_lease_epochs, p_outcomes, p_status_codes, p_errors, p_started_ats, p_durations_ms,
    p_retry_after_seconds, p_backoff_base_seconds, p_backoff_max_seconds, p_limited_max_seconds, p_hanging_ms
  );
  if v_settled.job_ids is null then
    return;
  end if;

  -- Later notifications of the same subject wait with the one that is retried. If they stayed due in their lane, every claim
  -- would step over them. The number is bounded, because a batch also has results of other tenants. The rest waits for the
  -- next attempt, and a claim looks only at the head of a lane.
  if coalesce(array_remove(v_settled.run_ats, null), '{}') <> '{}' then
    with later as materialized (
      select j.tenant_id, j.job_id, s.run_at
      from unnest(
        v_settled.tenant_ids, v_settled.job_ids, v_settled.subjects, v_settled.channel_ids, v_settled.run_ats
      ) as s (tenant_id, job_id, subject, channel_id, run_at)
      join public.notification_jobs j on j.tenant_id = s.tenant_id and j.subject = s.subject
        and j.channel_id = s.channel_id and j.job_id > s.job_id and j.state in ('pending', 'leased')
        and j.lease_until is null and j.run_at < s.run_at
      order by j.run_at
      limit 2000
    ), locked as materialized (
      select j.place, l.run_at
      from (select * from later order by tenant_id, job_id) l  -- as delivery._lift_pause locks them
      cross join lateral (
        select j.ctid as place
        from public.notification_jobs j
        where j.tenant_id = l.tenant_id and j.job_id = l.job_id and j.lease_until is null and j.finished_at is null
        for update
      ) j
    )
    update public.notification_jobs j
    set run_at = l.run_at
    from locked l
    where j.ctid = l.place;
  end if;

  -- A job that ended makes room in its lane, and a later notification of the subject may have waited for it. No job of a
  -- paused lane can be taken.
  if delivery._has_due_jobs(v_now, v_settled.tenant_ids, array(
    select case when s.paused_until is null then s.channel_id end
    from unnest(v_settled.channel_ids, v_settled.paused_untils) with ordinality as s (channel_id, paused_until, place)
    order by s.place
  )) then
    perform core.notify('pulse_delivery');
  end if;

  return query
  select s.job_id, s.state, coalesce(s.run_at, s.paused_until)
  from unnest(v_settled.job_ids, v_settled.states, v_settled.run_ats, v_settled.paused_untils)
    as s (job_id, state, run_at, paused_until);
end
$$;

comment on function delivery.finish(
  text[], bigint[], integer[], text[], integer[], text[], timestamptz[], double precision[], double precision[],
  double precision, double precision, double precision, double precision
) is
  'Record the outcomes of attempts (delivered, retry, limited, refused, gone or unknown, in parallel arrays) for the jobs whose '
  'lease still has this lease_epoch, and return those jobs with their new state: delivered, dead, or pending until run_at. '
  'Retry-After seconds pause the channel. Limited costs no attempt; p_limited_max_seconds after the job was made or redriven, '
  'it is given up. Gone disables the channel. An attempt of p_hanging_ms or longer ran into its deadline; three in a row pause '
  'the channel.';
