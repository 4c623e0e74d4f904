create function evaluator.open_alert(
  p_tenant_id text,
  p_fingerprint text,
  p_rule_name text,
  p_severity text,
  p_message text,
  p_trace_id text
) returns bigint
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select (opened.alerts -> 0 ->> 'alert_id')::bigint
  from evaluator._open(jsonb_build_array(jsonb_build_object(
    'tenant_id', p_tenant_id, 'fingerprint', p_fingerprint, 'rule_name', p_rule_name, 'severity', p_severity,
    'message', p_message, 'at', core.now(), 'trace_id', p_trace_id))) as opened (alerts)
$$;

comment on function evaluator.open_alert(text, text, text, text, text, text) is
  'Open an alert without a rule and return its alert_id, or null if an alert with this fingerprint is not closed.';
