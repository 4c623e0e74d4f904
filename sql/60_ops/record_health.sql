create function ops.record_health(
  p_services text[],
  p_urls text[],
  p_latencies_ms double precision[],
  p_errors text[],
  p_failures_to_alert integer default 3,
  p_min_seconds double precision default 0
) returns table (service text, status text, failures integer, error text, opened_alert_id bigint, closed_alerts integer)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_now timestamptz := core.now();
  v_check public.service_health;
begin
  for v_check in
    insert into public.service_health as health
      (tenant_id, service, url, status, failures, checked_at, changed_at, latency_ms, error)
    select
      'system',
      seen.service,
      seen.url,
      case when seen.error is null then 'up' else 'down' end,
      case when seen.error is null then 0 else 1 end,
      v_now,
      v_now,
      seen.latency_ms,
      left(seen.error, 500)
    from unnest(p_services, p_urls, p_latencies_ms, p_errors) as seen (service, url, latency_ms, error)
    -- One order for all copies, so that they cannot deadlock.
    order by seen.service
    on conflict (tenant_id, service) do update
    set
      url = excluded.url,
      status = excluded.status,
      failures = case when excluded.status = 'up' then 0 else health.failures + 1 end,
      checked_at = excluded.checked_at,
      changed_at = case when excluded.status = health.status then health.changed_at else excluded.changed_at end,
      latency_ms = excluded.latency_ms,
      error = excluded.error
    where health.checked_at <= excluded.checked_at - make_interval(secs => p_min_seconds)
    returning health.*
  loop
    service := v_check.service;
    status := v_check.status;
    failures := v_check.failures;
    error := v_check.error;
    opened_alert_id := null;
    closed_alerts := 0;
    if v_check.status = 'up' and v_check.changed_at = v_now then
      closed_alerts := ops._close_health_alert(p_service => v_check.service, p_reason => 'resolved');
    elsif v_check.failures >= p_failures_to_alert then
      opened_alert_id := ops._open_health_alert(p_check => v_check);
    end if;
    return next;
  end loop;
end
$$;

comment on function ops.record_health(text[], text[], double precision[], text[], integer, double precision) is
  'Store one round of health checks, element by element (error null: healthy). The alert health:<service> opens at '
  'p_failures_to_alert failures in a row and closes at the first good check. A check less than p_min_seconds after the '
  'stored one is dropped, so that several copies count as one. Return the checks that were stored.';
