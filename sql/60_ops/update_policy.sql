create function ops.update_policy(p_policy_id bigint, p_patch jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_old jsonb;
  v_new jsonb;
  v_changes jsonb;
begin
  if p_patch ? 'steps' then
    -- Locked before the policy's row, as in passes of the evaluator. An alert that opens meanwhile starts with the new steps.
    perform evaluator._lock_lanes(v_tenant_id);
  end if;
  perform from public.escalation_policies p
  where p.tenant_id = v_tenant_id and p.policy_id = p_policy_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no escalation policy %s', p_policy_id);
  end if;
  select to_jsonb(p) into v_old from api.escalation_policies p where p.policy_id = p_policy_id;
  update public.escalation_policies p
  set name = coalesce(p_patch ->> 'name', p.name)
  where p.tenant_id = v_tenant_id and p.policy_id = p_policy_id;
  if p_patch ? 'steps' then
    perform ops._set_steps(v_tenant_id, p_policy_id, p_patch -> 'steps');
  end if;
  select to_jsonb(p) into v_new from api.escalation_policies p where p.policy_id = p_policy_id;
  v_changes := core._changes(v_old, v_new);
  if v_changes = '{}' then
    return v_old;
  end if;
  update public.escalation_policies p
  set updated_at = clock_timestamp()
  where p.tenant_id = v_tenant_id and p.policy_id = p_policy_id;
  if v_changes ? 'steps' then
    perform ops._follow_policy(v_tenant_id, p_policy_id, array(
      select a.alert_id
      from public.alert_rules r
      join public.alerts a on a.tenant_id = r.tenant_id and a.rule_id = r.rule_id and a.status = 'open'
      where r.tenant_id = v_tenant_id and r.policy_id = p_policy_id
      order by a.alert_id));
  end if;
  return (select to_jsonb(p) from api.escalation_policies p where p.policy_id = p_policy_id);
end
$$;

comment on function ops.update_policy(bigint, jsonb) is
  'Change the name, replace the steps, or both, and return the policy. Raises PU404 if there is none. New steps apply '
  'to open alerts at once: each continues at the step number it had reached and keeps the gaps from there.';
