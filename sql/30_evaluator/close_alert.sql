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
    -- Says which it is: none of that number, or closed already.
    perform evaluator._lock_alert(v_tenant_id, p_alert_id);
  end if;
  return (select to_jsonb(a) from api.alerts a where a.alert_id = p_alert_id);
end
$$;

comment on function evaluator.close_alert(bigint, text) is
  'Close an alert for the acting person; PU404 when there is none, PU409 when it is closed already. It opens again when '
  'the next reading still breaches.';
