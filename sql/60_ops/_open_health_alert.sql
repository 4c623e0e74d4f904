create function ops._open_health_alert(p_check public.service_health) returns bigint
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_alert_id bigint;
begin
  v_alert_id := evaluator.open_alert(
    p_tenant_id => 'system',
    p_fingerprint => 'health:' || p_check.service,
    p_rule_name => 'service health',
    p_severity => 'critical',
    p_message => format('%s failed %s health checks in a row: %s', p_check.service, p_check.failures, p_check.error),
    p_trace_id => core.current_trace_id()
  );
  if v_alert_id is not null then
    perform ops._audit(
      p_event_type => 'system.service_down',
      p_entity_type => 'service',
      p_entity_id => p_check.service,
      p_message => format('%s does not answer: %s', p_check.service, p_check.error),
      p_details => jsonb_build_object('alert_id', v_alert_id, 'failures', p_check.failures, 'url', p_check.url)
    );
  end if;
  return v_alert_id;
end
$$;

comment on function ops._open_health_alert(public.service_health) is
  'Open the alert of a service that failed its checks. Return its number, null if one is open already.';
