create function evaluator.delete_rule(p_rule_id bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
begin
  perform evaluator._forget_rule(v_tenant_id, p_rule_id, 'rule deleted');
  perform dispatcher.delete_route(r.route_id)
  from public.notification_routes r
  where r.tenant_id = v_tenant_id and r.rule_id = p_rule_id;
  delete from public.alert_rules r
  where r.tenant_id = v_tenant_id and r.rule_id = p_rule_id;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no rule %s', p_rule_id);
  end if;
end
$$;

comment on function evaluator.delete_rule(bigint) is
  'Delete a rule with the routes that name it, and close its alerts. Raise PU404 for an unknown rule.';
