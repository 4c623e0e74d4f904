create function evaluator.delete_rule(p_rule_id bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_old public.alert_rules;
begin
  perform evaluator._forget_rule(v_tenant_id, p_rule_id, 'rule deleted');
  perform dispatcher.delete_route(r.route_id)
  from public.notification_routes r
  where r.tenant_id = v_tenant_id and r.rule_id = p_rule_id;
  delete from public.alert_rules r
  where r.tenant_id = v_tenant_id and r.rule_id = p_rule_id
  returning r.* into v_old;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no rule %s', p_rule_id);
  end if;
  perform audit.write(array[audit.event(
    p_tenant_id => v_tenant_id,
    p_event_type => 'rule.deleted',
    p_entity_type => 'rule',
    p_entity_id => p_rule_id::text,
    p_entity_name => v_old.name,
    p_message => format('rule %s deleted', p_rule_id),
    p_details => to_jsonb(v_old) - array['tenant_id', 'created_at', 'updated_at'])]);
end
$$;

comment on function evaluator.delete_rule(bigint) is
  'Remove a rule with the routes that were only for it, and close its alerts; PU404 when there is none.';
