create function evaluator.create_rule(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_new public.alert_rules := jsonb_populate_record(null::public.alert_rules, p_body);
begin
  perform evaluator._require_device(v_tenant_id, v_new.device_id);
  -- No pass of this tenant runs meanwhile, so the rule judges each reading either as a last known value or in a pass.
  perform evaluator._lock_lanes(v_tenant_id);
  insert into public.alert_rules as r (
    tenant_id, name, metric, operator, threshold, for_seconds, severity, device_id, tag, policy_id, enabled
  )
  values (
    v_tenant_id, v_new.name, v_new.metric, v_new.operator, v_new.threshold, coalesce(v_new.for_seconds, 0),
    coalesce(v_new.severity, 'warning'), v_new.device_id, v_new.tag, v_new.policy_id, coalesce(v_new.enabled, true)
  )
  returning r.* into v_new;
  if v_new.enabled then
    perform evaluator._judge_last(v_new, null, null);
  end if;
  return (select to_jsonb(r) from api.rules r where r.rule_id = v_new.rule_id);
end
$$;

comment on function evaluator.create_rule(jsonb) is
  'Add a rule with the members of alert_rules, judge the last known values by it, and return it as the API shows it. '
  'Raise PU422 if it names an unknown device.';
