create function evaluator.acknowledge_alert(p_alert_id bigint) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_actor text := core.visible_text(coalesce(core.current_actor_name(), core.current_actor_id(), session_user));
  v_alert public.alerts := evaluator._lock_alert(v_tenant_id, p_alert_id);
begin
  if v_alert.status = 'acknowledged' then
    raise exception using
      errcode = 'PU409',
      message = format('%s has acknowledged alert %s already', v_alert.acknowledged_by, p_alert_id);
  end if;
  update public.alerts a
  set status = 'acknowledged', acknowledged_at = core.now(), acknowledged_by = v_actor
  where a.tenant_id = v_tenant_id and a.alert_id = p_alert_id;
  delete from ops.escalations e where e.tenant_id = v_tenant_id and e.alert_id = p_alert_id;
  perform evaluator._publish_act(v_alert, 'acknowledged', null);
  return (select to_jsonb(a) from api.alerts a where a.alert_id = p_alert_id);
end
$$;

comment on function evaluator.acknowledge_alert(bigint) is
  'Acknowledge an open alert for the acting user, which ends its escalation. Raise PU404 for an unknown alert, PU409 if it is '
  'acknowledged or closed already.';
