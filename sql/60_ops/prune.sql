create function ops.prune(
  p_telemetry_days integer,
  p_alert_days integer,
  p_service_metrics_days integer,
  p_limit integer default 1000
) returns table (what text, removed bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
declare
  v_now timestamptz := core.now();
  v_partitions text[];
  v_strays integer;
  v_removed jsonb;
begin
  -- ops.ensure_partitions keeps 8 days back, as readings of the last 7 days are taken.
  if least(p_telemetry_days, p_alert_days, p_service_metrics_days) < 1 or p_telemetry_days < 9 then
    raise exception using errcode = 'PU422', message = 'telemetry is kept for 9 days at least, everything else for 1';
  end if;
  perform pg_advisory_xact_lock(hashtextextended('pulse ops partitions', 0));
  v_partitions := array(select ops._drop_old_telemetry(p_before => v_now - make_interval(days => p_telemetry_days)));
  v_strays := ops._prune_stray_telemetry(
    p_before => v_now - make_interval(days => p_telemetry_days),
    p_limit => p_limit
  );
  v_removed := ops._prune_alerts(p_before => v_now - make_interval(days => p_alert_days), p_limit => p_limit)
    || ops._prune_service_history(p_before => v_now - make_interval(days => p_service_metrics_days), p_limit => p_limit)
    || jsonb_build_object('telemetry', v_strays, 'telemetry_partitions', cardinality(v_partitions));
  return query
    select entry.key, entry.value::bigint
    from jsonb_each_text(v_removed) entry
    where entry.value <> '0'
    order by entry.key;
  if found then
    perform ops._audit(
      p_event_type => 'system.pruned',
      p_message => 'Rows past their retention were removed.',
      p_details => jsonb_build_object('removed', v_removed, 'partitions', v_partitions)
    );
  end if;
end
$$;

comment on function ops.prune(integer, integer, integer, integer) is
  'Remove what is older than its retention in days: daily partitions of telemetry, closed alerts with all that was '
  'sent about them, samples of service counters; of everything but partitions at most p_limit a call. Gives the rows '
  'removed for each table, nothing when done. The audit trail is not touched. Raises 55P03 when a lock is not free '
  'in time.';
