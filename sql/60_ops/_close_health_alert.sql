create function ops._close_health_alert(p_service text, p_reason text) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_closed integer;
begin
  v_closed := evaluator.close_alert_by_fingerprint(
    p_tenant_id => 'system',
    p_fingerprint => 'health:' || p_service,
    p_reason => p_reason,
    p_trace_id => core.current_trace_id()
  );
  if v_closed > 0 and p_reason = 'resolved' then
    perform ops._audit(
      p_event_type => 'system.service_up',
      p_entity_type => 'service',
      p_entity_id => p_service,
      p_message => format('%s answers again.', p_service),
      p_details => '{}'
    );
  end if;
  return v_closed;
end
$$;

comment on function ops._close_health_alert(text, text) is
  'Close the alert of a service. Return the number of alerts closed, 0 or 1.';
