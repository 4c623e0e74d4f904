create function evaluator.close_alert(p_alert_id bigint, p_reason text) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_closed integer;
begin
  v_closed := evaluator.close_alerts(
    v_tenant_id, array[p_alert_id], p_reason, core.current_actor_id(), core.current_trace_id());
  if v_closed = 0 then
    -- This raises PU404 for an unknown alert, PU409 for a closed one.
    perform evaluator._lock_alert(v_tenant_id, p_alert_id);
  end if;
  return (select to_jsonb(a) from api.alerts a where a.alert_id = p_alert_id);
end
$$;

comment on function evaluator.close_alert(bigint, text) is
  'Close an alert for the acting user. It opens again if the next reading still breaches. Raise PU404 for an unknown alert, '
  'PU409 if it is closed already.';
