create function ops.prune(p_alert_days integer, p_service_metrics_days integer, p_limit integer default 1000)
returns table (what text, removed bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
declare
  v_now timestamptz := core.now();
  v_removed jsonb;
begin
  if least(p_alert_days, p_service_metrics_days) < 1 then
    raise exception using errcode = 'PU422', message = 'alerts and samples must be kept for at least 1 day';
  end if;
  perform ops._await_lock('prune');
  v_removed := ops._prune_alerts(p_before => v_now - make_interval(days => p_alert_days), p_limit => p_limit)
    || ops._prune_service_history(
      p_before => v_now - make_interval(days => p_service_metrics_days),
      p_limit => p_limit
    )
    || jsonb_build_object(
      'idempotency_keys',
      ops._prune_rows('ingest.idempotency_keys', 'created_at', v_now - interval '24 hours', p_limit),
      'revocations',
      ops._prune_rows('public.revocations', 'expires_at', v_now, p_limit),
      -- An expired key stays known for 90 days, so that a request with it is recorded under the key's name.
      'api_keys',
      ops._prune_rows('public.api_keys', 'expires_at', v_now - interval '90 days', p_limit)
    );
  return query select r.* from ops._report_pruned(v_removed, 'Rows past their retention were removed.') r;
end
$$;

comment on function ops.prune(integer, integer, integer) is
  'Delete rows past their retention in days: closed alerts with their notifications, samples of service counters, '
  'idempotency keys of the day before, revocations that have ended, and API keys that ended 90 days ago, at most '
  'p_limit of each. Return the rows removed for each table, nothing when done. ops.prune_telemetry removes old '
  'readings. The audit trail is not touched. Raises 55P03 if a lock is not free in time.';
