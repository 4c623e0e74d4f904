-- One statement writes attempt, new state, pause and audit event, because they are one fact.
create function delivery._settle(
  p_tenant_ids text[],
  p_job_ids bigint[],
  p_lease_epochs integer[],
  p_outcomes text[],
  p_status_codes integer[],
  p_errors text[],
  p_started_ats timestamptz[],
  p_durations_ms double precision[],
  p_retry_after_seconds double precision[],
  p_backoff_base_seconds double precision,
  p_backoff_max_seconds double precision,
  p_limited_max_seconds double precision,
  p_hanging_ms double precision,
  out tenant_ids text[],
  out job_ids bigint[],
  out subjects text[],
  out channel_ids bigint[],
  out states text[],
  out run_ats timestamptz[],
  out paused_untils timestamptz[]
)
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
-- Planning costs more than settling a few jobs, so one plan serves arrays of any length.
set plan_cache_mode = force_generic_plan
as $$
declare
  v_now timestamptz := core.now();
  v_events public.audit_log[];
begin
  if p_outcomes && '{gone}' then
    -- The channel is locked before its jobs, as in delivery.redrive.
    perform delivery._lock_channels(p_tenant_ids, p_job_ids);
  end if;
  perform delivery._lock_leased(p_tenant_ids, p_job_ids, p_lease_epochs);
  perform delivery._pause_lanes(
    p_tenant_ids, p_job_ids, p_lease_epochs, p_outcomes, p_errors, p_durations_ms, p_retry_after_seconds,
    p_backoff_base_seconds, p_backoff_max_seconds, p_hanging_ms
  );
  -- A separate statement takes its snapshot under the locks, so the rows cannot have moved.
  with held as materialized (
    select
      l.j, l.place, o.outcome, r.status_code, r.error, r.started_at, r.duration_ms, r.retry_after_seconds,
      case
        when o.outcome = 'delivered' then 'delivered'
        when d.reason is not null then 'dead'
        else 'pending'
      end as next_state,
      d.reason as dead_reason,
      case
        when d.reason is null and o.outcome in ('retry', 'unknown') then v_now + make_interval(
          secs => greatest(
            delivery._backoff_seconds((l.j).attempts, p_backoff_base_seconds, p_backoff_max_seconds), r.retry_after_seconds
          )
        )
      end as next_run_at,
      case
        when o.outcome = 'limited' or r.retry_after_seconds > 0
          or o.outcome in ('retry', 'unknown') and delivery._hung(r.duration_ms, p_hanging_ms) and p.paused_until > v_now
        then p.paused_until
      end as paused_until
    from unnest(
      p_tenant_ids, p_job_ids, p_lease_epochs, p_outcomes, p_status_codes, p_errors, p_started_ats, p_durations_ms,
      p_retry_after_seconds
    ) as r (
      tenant_id, job_id, lease_epoch, outcome, status_code, error, started_at, duration_ms, retry_after_seconds
    )
    -- The limit keeps this one look-up by key for each result. The plan of a join would depend on statistics, which know
    -- no leased rows.
    cross join lateral (
      select j, j.ctid as place
      from public.notification_jobs j
      where j.tenant_id = r.tenant_id and j.job_id = r.job_id and j.lease_epoch = r.lease_epoch
        and j.lease_until is not null
      limit 1
    ) l
    left join delivery.lanes p on p.tenant_id = (l.j).tenant_id and p.channel_id = (l.j).channel_id
    -- The request went to an address that the channel no longer has, so only that address is gone.
    cross join lateral (
      select case when r.outcome = 'gone' and (l.j).leased_at < p.lifted_at then 'retry' else r.outcome end as outcome
    ) o
    cross join lateral (
      select case
        when o.outcome in ('refused', 'gone') then o.outcome
        when o.outcome = 'limited' and v_now > coalesce((l.j).redriven_at, (l.j).created_at)
          + make_interval(secs => p_limited_max_seconds) then 'limited'
        when o.outcome in ('retry', 'unknown') and (l.j).attempts >= (l.j).max_attempts then 'exhausted'
      end as reason
    ) d
  ), settled as (
    update public.notification_jobs j
    set
      state = h.next_state,
      -- A limited job has not failed: it keeps its attempts and its place in the lane.
      attempts = j.attempts - (h.outcome = 'limited')::integer,
      run_at = coalesce(h.next_run_at, j.run_at),
      lease_until = null,
      leased_by = null,
      finished_at = case when h.next_state <> 'pending' then clock_timestamp() end,
      dead_reason = h.dead_reason,
      last_error = coalesce(h.error, j.last_error)
    from held h
    where j.ctid = h.place  -- locked, so it cannot have moved
  ), attempt as (
    insert into public.delivery_attempts (
      tenant_id, job_id, channel_id, attempt, lease_epoch, worker, outcome, status_code, error, started_at, duration_ms,
      trace_id
    )
    -- Leases are never reset, attempts are reset by a redrive. So the lease numbers a job's attempts.
    select
      (h.j).tenant_id, (h.j).job_id, (h.j).channel_id, (h.j).lease_epoch, (h.j).lease_epoch, (h.j).leased_by, h.outcome,
      h.status_code, h.error, h.started_at, h.duration_ms, (h.j).trace_id
    from held h
  )
  select
    array_agg((h.j).tenant_id), array_agg((h.j).job_id), array_agg((h.j).subject), array_agg((h.j).channel_id),
    array_agg(h.next_state), array_agg(h.next_run_at), array_agg(h.paused_until),
    array_agg(delivery._outcome_event(
      h.j, n.name, h.outcome, h.next_state, coalesce(h.next_run_at, h.paused_until), h.status_code, h.error, h.duration_ms
    ))
  into tenant_ids, job_ids, subjects, channel_ids, states, run_ats, paused_untils, v_events
  from held h
  left join public.notification_channels n on n.tenant_id = (h.j).tenant_id and n.channel_id = (h.j).channel_id;
  if job_ids is null then
    return;
  end if;
  perform audit.write(v_events);
  perform delivery._recover_lanes(
    p_tenant_ids, p_job_ids, p_lease_epochs, p_outcomes, p_durations_ms, p_hanging_ms
  );
  if p_outcomes && '{gone}' then
    perform delivery._disable_gone(tenant_ids, job_ids);
  end if;
end
$$;

comment on function delivery._settle(
  text[], bigint[], integer[], text[], integer[], text[], timestamptz[], double precision[], double precision[],
  double precision, double precision, double precision, double precision
) is
  'Record the outcomes of attempts whose lease is still the current one, and return those jobs in parallel arrays, all null if '
  'there are none. run_at is null for a job that ended or was limited, paused_until for a channel without a pause.';
