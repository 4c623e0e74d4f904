create function evaluator.update_rule(p_rule_id bigint, p_patch jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_followed constant text[] := '{name,severity,metric,operator,threshold,for_seconds,device_id,tag,enabled}';
  v_old public.alert_rules;
  v_new public.alert_rules;
  v_changes jsonb;
begin
  if p_patch ?| (v_followed || '{policy_id}') then
    -- Passes of the evaluator lock their lanes before rows, so the lanes are locked first.
    perform evaluator._lock_lanes(v_tenant_id);
  end if;
  select r.* into v_old
  from public.alert_rules r
  where r.tenant_id = v_tenant_id and r.rule_id = p_rule_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no rule %s', p_rule_id);
  end if;
  v_new := jsonb_populate_record(v_old, p_patch - array['tenant_id', 'rule_id', 'disabled_reason', 'created_at', 'updated_at']);
  v_changes := core._changes(to_jsonb(v_old), to_jsonb(v_new));
  if v_changes <> '{}' then
    if v_changes ? 'device_id' or (v_changes ? 'enabled' and v_new.enabled) then
      perform evaluator._require_device(v_tenant_id, v_new.device_id);
    end if;
    if v_changes ? 'enabled' then
      v_new.disabled_reason := null;
    end if;
    update public.alert_rules r
    set (name, metric, operator, threshold, for_seconds, severity, device_id, tag, policy_id, enabled,
      disabled_reason, updated_at) = (
      v_new.name, v_new.metric, v_new.operator, v_new.threshold, v_new.for_seconds, v_new.severity, v_new.device_id,
      v_new.tag, v_new.policy_id, v_new.enabled, v_new.disabled_reason, clock_timestamp())
    where r.tenant_id = v_tenant_id and r.rule_id = p_rule_id;
    if v_changes ? 'policy_id' then
      perform ops._follow_rule_policy(v_tenant_id, p_rule_id, v_new.policy_id);
    end if;
    if v_changes ?| v_followed then
      perform evaluator._follow_rule(v_old, v_new);
    end if;
  end if;
  return (select to_jsonb(r) from api.rules r where r.rule_id = p_rule_id);
end
$$;

comment on function evaluator.update_rule(bigint, jsonb) is
  'Change the members that p_patch names and return the rule. Alerts whose condition still holds stay open with the new '
  'severity and name. Disabling the rule closes all its alerts. Raise PU404 for an unknown rule.';
