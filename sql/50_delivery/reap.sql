create function delivery.reap(
  p_limit integer,
  p_backoff_base_seconds double precision default 5,
  p_backoff_max_seconds double precision default 1800
) returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_now timestamptz := core.now();
  v_tenant_ids text[];
  v_job_ids bigint[];
  v_lease_epochs integer[];
  v_outcomes text[];
  v_errors text[];
  v_count integer;
begin
  -- A lane that is recovering keeps its state; a lane that was quiet for an hour is reset. Workers that finish jobs lock the
  -- lanes they pause in the order of their keys, so a locked lane is left to the next call.
  with over as materialized (
    select l.tenant_id, l.channel_id
    from delivery.lanes l
    where l.paused_until < v_now - case when l.limits > 0 or l.hangs > 0 then interval '1 hour' else interval '0' end
      and coalesce(l.lifted_at, '-infinity') < v_now - interval '1 hour'
    order by l.tenant_id, l.channel_id
    for update skip locked
  )
  delete from delivery.lanes l
  using over
  where l.tenant_id = over.tenant_id and l.channel_id = over.channel_id;
  with expired as materialized (
    select j.tenant_id, j.job_id, j.lease_epoch
    from public.notification_jobs j
    where j.state = 'leased' and j.lease_until < v_now
    order by j.lease_until
    limit p_limit
    for update skip locked
  )
  select
    array_agg(e.tenant_id), array_agg(e.job_id), array_agg(e.lease_epoch), array_agg('unknown'::text),
    array_agg('the worker vanished; whether the request was sent is unknown'::text)
  into v_tenant_ids, v_job_ids, v_lease_epochs, v_outcomes, v_errors
  from expired e;
  if v_job_ids is null then
    return 0;
  end if;
  -- Shorter arrays are padded with nulls: status, times and Retry-After are unknown.
  select count(*)
  into v_count
  from delivery.finish(
    p_tenant_ids => v_tenant_ids,
    p_job_ids => v_job_ids,
    p_lease_epochs => v_lease_epochs,
    p_outcomes => v_outcomes,
    p_status_codes => '{}',
    p_errors => v_errors,
    p_started_ats => '{}',
    p_durations_ms => '{}',
    p_retry_after_seconds => '{}',
    p_backoff_base_seconds => p_backoff_base_seconds,
    p_backoff_max_seconds => p_backoff_max_seconds
  );
  return v_count;
end
$$;

comment on function delivery.reap(integer, double precision, double precision) is
  'End at most p_limit expired leases and return their number. Each attempt is recorded as unknown. Its job is retried after '
  'the back-off, or is dead after its last attempt. Only the delivery worker calls it, with its configured back-off.';
