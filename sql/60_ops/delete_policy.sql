create function ops.delete_policy(p_policy_id bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_rules text;
begin
  perform from public.escalation_policies p
  where p.tenant_id = v_tenant_id and p.policy_id = p_policy_id
  for update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no escalation policy %s', p_policy_id);
  end if;
  select string_agg(format('rule %s (%s)', r.rule_id, r.name), ', ' order by r.rule_id) into v_rules
  from public.alert_rules r
  where r.tenant_id = v_tenant_id and r.policy_id = p_policy_id;
  if v_rules is not null then
    raise exception using errcode = 'PU409', message = format('escalation policy %s is used by %s', p_policy_id, v_rules);
  end if;
  delete from ops.escalations e where e.tenant_id = v_tenant_id and e.policy_id = p_policy_id;
  delete from public.escalation_policies p where p.tenant_id = v_tenant_id and p.policy_id = p_policy_id;
end
$$;

comment on function ops.delete_policy(bigint) is
  'Delete a policy with its steps. Raises PU404 if there is none, and PU409 with the names of the rules that use it.';
