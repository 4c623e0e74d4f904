create function evaluator._apply(p_transitions jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_opened jsonb;
begin
  -- Closes of alerts from earlier passes go first: they make room for a new alert with the same fingerprint.
  perform evaluator._close((
    select coalesce(jsonb_agg(t.closure order by t.at), '[]')
    from (
      select distinct on (c.tenant_id, c.rule_id, c.device_id) c.kind, c.at, jsonb_build_object(
        'tenant_id', c.tenant_id, 'fingerprint', format('rule:%s:%s', c.rule_id, c.device_id), 'at', c.at,
        'reason', 'resolved', 'value', c.value, 'received_at', c.received_at, 'trace_id', c.trace_id) as closure
      from jsonb_to_recordset(p_transitions) as c (tenant_id text, rule_id bigint, device_id text, n integer, kind text,
        at timestamptz, value double precision, received_at timestamptz, trace_id text)
      order by c.tenant_id, c.rule_id, c.device_id, c.n
    ) t
    where t.kind = 'close'));
  v_opened := evaluator._open((
    select coalesce(jsonb_agg(jsonb_build_object(
        'tenant_id', t.tenant_id, 'fingerprint', format('rule:%s:%s', t.rule_id, t.device_id), 'rule_id', t.rule_id,
        'rule_name', r.name, 'device_id', t.device_id, 'metric', r.metric, 'severity', r.severity,
        'message', format('%s of %s is %s (%s %s%s)', r.metric, t.device_id, t.value, r.operator, r.threshold,
          case when r.for_seconds > 0 then format(' for %s s', r.for_seconds) else '' end),
        'value', t.value, 'at', t.at, 'received_at', t.received_at, 'policy_id', r.policy_id, 'trace_id', t.trace_id,
        'closed_at', t.closed_at, 'close_value', t.close_value, 'close_received_at', t.close_received_at,
        'close_trace_id', t.close_trace_id) order by t.at, t.rule_id, t.device_id), '[]')
    from (
      select o.*, lead(o.at) over pair as closed_at, lead(o.value) over pair as close_value,
        lead(o.received_at) over pair as close_received_at, lead(o.trace_id) over pair as close_trace_id
      from jsonb_to_recordset(p_transitions) as o (tenant_id text, rule_id bigint, device_id text, n integer, kind text,
        at timestamptz, value double precision, received_at timestamptz, trace_id text)
      window pair as (partition by o.tenant_id, o.rule_id, o.device_id order by o.n)
    ) t
    join public.alert_rules r on r.tenant_id = t.tenant_id and r.rule_id = t.rule_id
    where t.kind = 'open'));
  return v_opened;
end
$$;

comment on function evaluator._apply(jsonb) is
  'Carry out a pass''s transitions: close what ended, open what began, and return the alerts that were opened.';
