create function evaluator._apply(p_transitions jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1  -- every digit of a double
as $$
declare
  v_opened jsonb;
begin
  -- Closes of alerts from earlier passes go first: they make room for a new alert with the same fingerprint.
  perform evaluator._close((
    select coalesce(jsonb_agg(jsonb_build_object(
        'tenant_id', t.tenant_id, 'fingerprint', format('rule:%s:%s', t.rule_id, t.device_id), 'at', t.at,
        'reason', 'resolved', 'value', t.value, 'received_at', t.received_at, 'trace_id', t.trace_id,
        'message', evaluator._quiet_message(r.metric, t.device_id, t.value, r.operator, r.threshold)) order by t.at), '[]')
    from (
      select distinct on (c.tenant_id, c.rule_id, c.device_id) c.*
      from jsonb_to_recordset(p_transitions) as c (tenant_id text, rule_id bigint, device_id text, n integer, kind text,
        at timestamptz, value double precision, received_at timestamptz, trace_id text)
      where c.kind in ('open', 'close')
      order by c.tenant_id, c.rule_id, c.device_id, c.n
    ) t
    join public.alert_rules r on r.tenant_id = t.tenant_id and r.rule_id = t.rule_id
    where t.kind = 'close'));
  v_opened := evaluator._open((
    select coalesce(jsonb_agg(jsonb_build_object(
        'tenant_id', t.tenant_id, 'fingerprint', format('rule:%s:%s', t.rule_id, t.device_id), 'rule_id', t.rule_id,
        'rule_name', r.name, 'device_id', t.device_id, 'device_name', d.name, 'metric', r.metric, 'severity', r.severity,
        'message', format('%s of %s is %s (%s)', r.metric, t.device_id, core.number_text(t.value),
          evaluator._condition(r.operator, r.threshold, r.for_seconds)),
        'value', t.value, 'at', t.at, 'received_at', t.received_at, 'policy_id', r.policy_id, 'trace_id', t.trace_id,
        'closed_at', greatest(t.closed_at, case when t.closed_at is not null then t.at end),
        'close_value', t.close_value, 'close_received_at', t.close_received_at, 'close_trace_id', t.close_trace_id,
        'close_message', case when t.closed_at is not null
          then evaluator._quiet_message(r.metric, t.device_id, t.close_value, r.operator, r.threshold) end)
        order by t.at, t.rule_id, t.device_id, t.n), '[]')
    from (
      select o.tenant_id, o.rule_id, o.device_id, o.n, o.kind, o.at, o.value, o.received_at, o.trace_id,
        lead(o.at) over pair as closed_at, lead(o.value) over pair as close_value,
        lead(o.received_at) over pair as close_received_at, lead(o.trace_id) over pair as close_trace_id
      from jsonb_to_recordset(p_transitions) as o (tenant_id text, rule_id bigint, device_id text, n integer, kind text,
        at timestamptz, value double precision, received_at timestamptz, trace_id text)
      where o.kind in ('open', 'close')
      window pair as (partition by o.tenant_id, o.rule_id, o.device_id order by o.n)
      union all
      select l.tenant_id, l.rule_id, l.device_id, 2147483647, 'open', l.at, l.value, l.received_at, l.trace_id,
        l.closed_at, l.close_value, l.received_at, l.trace_id
      from jsonb_to_recordset(p_transitions) as l (tenant_id text, rule_id bigint, device_id text, kind text,
        at timestamptz, value double precision, received_at timestamptz, trace_id text, closed_at timestamptz,
        close_value double precision)
      where l.kind = 'late'
    ) t
    join public.alert_rules r on r.tenant_id = t.tenant_id and r.rule_id = t.rule_id
    left join lateral (
      select d.name from public.devices d where d.tenant_id = t.tenant_id and d.device_id = t.device_id limit 1
    ) d on true
    where t.kind = 'open'));
  return v_opened;
end
$$;

comment on function evaluator._apply(jsonb) is
  'Carry out a pass''s transitions: close what ended, open what began, and return the alerts that were opened.';
