create function evaluator._forget_device(p_tenant_id text, p_device_id text, p_reason text) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_closed integer;
begin
  perform evaluator._lock_lanes(p_tenant_id, array[core.shard_of(p_tenant_id, p_device_id)]);
  v_closed := evaluator.close_alerts(p_tenant_id,
    array(select a.alert_id from public.alerts a
      where a.tenant_id = p_tenant_id and a.device_id = p_device_id and a.status <> 'closed'),
    p_reason, core.current_actor_id(), core.current_trace_id());
  delete from public.rule_state s where s.tenant_id = p_tenant_id and s.device_id = p_device_id;
  return v_closed;
end
$$;

comment on function evaluator._forget_device(text, text, text) is
  'Close a device''s alerts and delete its state, before it changes groups, is disabled or is deleted.';
