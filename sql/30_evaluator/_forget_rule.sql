create function evaluator._forget_rule(p_tenant_id text, p_rule_id bigint, p_reason text) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_closed integer;
begin
  perform evaluator._lock_lanes(p_tenant_id);
  v_closed := evaluator.close_alerts(p_tenant_id,
    array(select a.alert_id from public.alerts a
      where a.tenant_id = p_tenant_id and a.rule_id = p_rule_id and a.status <> 'closed'),
    p_reason, core.current_actor_id(), core.current_trace_id());
  delete from public.rule_state s where s.tenant_id = p_tenant_id and s.rule_id = p_rule_id;
  return v_closed;
end
$$;

comment on function evaluator._forget_rule(text, bigint, text) is
  'Close a rule''s alerts and delete its state, before its condition changes or it is deleted. No pass of the tenant runs meanwhile.';
