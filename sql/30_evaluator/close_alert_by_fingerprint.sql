create function evaluator.close_alert_by_fingerprint(p_tenant_id text, p_fingerprint text, p_reason text, p_trace_id text)
returns integer
language sql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
  select evaluator._close(jsonb_build_array(jsonb_build_object(
    'tenant_id', p_tenant_id, 'fingerprint', p_fingerprint, 'at', core.now(), 'reason', p_reason,
    'trace_id', p_trace_id)))
$$;

comment on function evaluator.close_alert_by_fingerprint(text, text, text, text) is
  'Close the alert with this fingerprint; 1 when it was not closed, else 0.';
