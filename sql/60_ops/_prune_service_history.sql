create function ops._prune_service_history(p_before timestamptz, p_limit integer) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_samples integer;
  v_services integer := 0;
  v_service text;
begin
  delete from public.service_metrics
  where ctid = any(array(
    select old.ctid
    from public.service_metrics old
    where old.tenant_id = 'system'
      and old.recorded_at < p_before
    order by old.recorded_at
    limit p_limit
    for update skip locked
  ));
  get diagnostics v_samples = row_count;

  -- A service that was not checked for a day is no longer a target of the monitor.
  for v_service in
    delete from public.service_health
    where tenant_id = 'system'
      and checked_at < least(p_before, core.now() - interval '1 day')
    returning service
  loop
    v_services := v_services + 1;
    perform ops._close_health_alert(p_service => v_service, p_reason => 'no longer monitored');
  end loop;

  return jsonb_build_object('service_metrics', v_samples, 'service_health', v_services);
end
$$;

comment on function ops._prune_service_history(timestamptz, integer) is
  'Delete samples older than p_before, at most p_limit, and services that were not checked since, and close their '
  'alerts. Return {table: rows deleted}.';
