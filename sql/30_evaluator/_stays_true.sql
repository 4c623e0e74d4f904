create function evaluator._stays_true(p_rule public.alert_rules, p_device_id text) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select
    from public.rule_state s
    join public.devices d on d.tenant_id = s.tenant_id and d.device_id = s.device_id
    where s.tenant_id = p_rule.tenant_id and s.rule_id = p_rule.rule_id and s.device_id = p_device_id
      and evaluator._in_scope(p_rule, d) and evaluator._breaches(p_rule.operator, s.last_value, p_rule.threshold))
$$;

comment on function evaluator._stays_true(public.alert_rules, text) is
  'Return true if a pending or firing device is in the rule''s scope and its last value breaches.';
