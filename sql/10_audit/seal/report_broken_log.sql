create function audit.report_broken_log(p_message text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'audit.log_broken',
    p_message => p_message)]);
  perform evaluator.open_alert(
    p_tenant_id => 'system',
    p_fingerprint => 'audit:log',
    p_rule_name => 'audit trail',
    p_severity => 'critical',
    p_message => p_message,
    p_trace_id => core.current_trace_id()
  );
end
$$;

comment on function audit.report_broken_log(text) is
  'Record and alert that the sealed log contradicts the signatures. Only one alert is open at a time.';
