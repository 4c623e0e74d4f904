create function evaluator._apply(p_transitions evaluator.transition[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1  -- every digit of a double
as $$
declare
  v_kinds constant text[] := array(select distinct t.kind from unnest(p_transitions) t);
begin
  -- A flapping alert stays open; its closings and openings become one event.
  if 'flapping' = any (v_kinds) then
    perform evaluator._publish(jsonb_agg(jsonb_build_object('tenant_id', a.tenant_id, 'alert_id', a.alert_id,
      'kind', 'flapping', 'at', f.at, 'value', f.value, 'received_at', f.received_at, 'changes', f.changes,
      'trace_id', f.trace_id, 'message', evaluator._flapping_message(a.metric, a.device_id, f.changes))
      order by f.at, a.alert_id))
    from unnest(p_transitions) f
    join public.alerts a on a.tenant_id = f.tenant_id and a.fingerprint = format('rule:%s:%s', f.rule_id, f.device_id)
      and a.status <> 'closed'
    where f.kind = 'flapping'
    having count(*) > 0;
  end if;
  -- Alerts of earlier passes close first, which makes room for a new alert with the same fingerprint.
  if 'close' = any (v_kinds) then
    perform evaluator._close(jsonb_agg(jsonb_build_object(
      'tenant_id', t.tenant_id, 'fingerprint', format('rule:%s:%s', t.rule_id, t.device_id), 'at', t.at,
      'reason', 'resolved', 'value', t.value, 'received_at', t.received_at, 'changes', t.changes, 'trace_id', t.trace_id,
      'message', evaluator._quiet_message(r.metric, t.device_id, t.value, r.operator, r.threshold)) order by t.at))
    from (
      select distinct on (c.tenant_id, c.rule_id, c.device_id) c.*
      from unnest(p_transitions) c
      where c.kind in ('open', 'close')
      order by c.tenant_id, c.rule_id, c.device_id, c.n
    ) t
    join public.alert_rules r on r.tenant_id = t.tenant_id and r.rule_id = t.rule_id
    where t.kind = 'close'
    having count(*) > 0;
  end if;
  if v_kinds && '{open,late}' then
    perform evaluator._open(jsonb_agg(jsonb_build_object(
      'tenant_id', t.tenant_id, 'fingerprint', format('rule:%s:%s', t.rule_id, t.device_id), 'rule_id', t.rule_id,
      'rule_name', r.name, 'device_id', t.device_id, 'device_name', d.name, 'metric', r.metric, 'severity', r.severity,
      'message', format('%s of %s is %s (%s)', r.metric, t.device_id, core.number_text(t.value),
        evaluator._condition(r.operator, r.threshold, r.for_seconds)),
      'value', t.value, 'at', t.at, 'received_at', t.received_at, 'policy_id', r.policy_id, 'changes', t.changes,
      'trace_id', t.trace_id,
      'closed_at', greatest(t.closed_at, case when t.closed_at is not null then t.at end),
      'close_value', t.close_value, 'close_received_at', t.close_received_at, 'close_trace_id', t.close_trace_id,
      'close_message', case when t.closed_at is not null
        then evaluator._quiet_message(r.metric, t.device_id, t.close_value, r.operator, r.threshold) end)
      order by t.at, t.rule_id, t.device_id, t.n))
    from (
      select o.kind, o.tenant_id, o.rule_id, o.device_id, o.n, o.at, o.value, o.received_at, o.trace_id, o.changes,
        lead(o.at) over pair as closed_at, lead(o.value) over pair as close_value,
        lead(o.received_at) over pair as close_received_at, lead(o.trace_id) over pair as close_trace_id
      from unnest(p_transitions) o
      where o.kind in ('open', 'close')
      window pair as (partition by o.tenant_id, o.rule_id, o.device_id order by o.n)
      union all
      select l.* from unnest(p_transitions) l where l.kind = 'late'
    ) t
    join public.alert_rules r on r.tenant_id = t.tenant_id and r.rule_id = t.rule_id
    left join lateral (
      select d.name from public.devices d where d.tenant_id = t.tenant_id and d.device_id = t.device_id limit 1
    ) d on true
    where t.kind in ('open', 'late')
    having count(*) > 0;
  end if;
end
$$;

comment on function evaluator._apply(evaluator.transition[]) is
  'Carry out the transitions of a pass: publish flapping alerts, close alerts and open alerts.';
