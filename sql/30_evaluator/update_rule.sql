create function evaluator.update_rule(p_rule_id bigint, p_patch jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  -- A change of any of these makes the alerts and the state of the rule stand for a condition that is no more.
  v_condition constant text[] := '{metric,operator,threshold,for_seconds,device_id,tag,enabled}';
  v_old public.alert_rules;
  v_new public.alert_rules;
  v_changes jsonb;
begin
  if p_patch ?| (v_condition || '{policy_id}') then
    -- Before the row is locked: passes of the evaluator take their shard first.
    perform evaluator._lock_shards(array(select generate_series(0, 15)::smallint));
  end if;
  select r.* into v_old
  from public.alert_rules r
  where r.tenant_id = v_tenant_id and r.rule_id = p_rule_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no rule %s', p_rule_id);
  end if;
  v_new := jsonb_populate_record(v_old, p_patch - array['tenant_id', 'rule_id', 'created_at', 'updated_at']);
  v_changes := core._changes(to_jsonb(v_old), to_jsonb(v_new));
  if v_changes <> '{}' then
    if v_changes ? 'device_id' then
      perform evaluator._require_device(v_tenant_id, v_new.device_id);
    end if;
    if v_changes ?| v_condition then
      perform evaluator._forget_rule(v_tenant_id, p_rule_id, case when v_new.enabled then 'rule changed' else 'rule disabled' end);
    end if;
    update public.alert_rules r
    set (name, metric, operator, threshold, for_seconds, severity, device_id, tag, policy_id, enabled, updated_at) = (
      v_new.name, v_new.metric, v_new.operator, v_new.threshold, v_new.for_seconds, v_new.severity, v_new.device_id,
      v_new.tag, v_new.policy_id, v_new.enabled, clock_timestamp())
    where r.tenant_id = v_tenant_id and r.rule_id = p_rule_id;
    if v_changes ? 'policy_id' then
      perform ops._follow_rule_policy(v_tenant_id, p_rule_id, v_new.policy_id);
    end if;
  end if;
  return (select to_jsonb(r) from api.rules r where r.rule_id = p_rule_id);
end
$$;

comment on function evaluator.update_rule(bigint, jsonb) is
  'Change the members that p_patch names and return the rule; PU404 when there is none. A new condition, or disabling '
  'it, closes the alerts that the old one opened.';
