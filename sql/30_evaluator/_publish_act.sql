create function evaluator._publish_act(p_alert public.alerts, p_kind text, p_reason text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform evaluator._publish(jsonb_build_array(jsonb_build_object(
    'tenant_id', p_alert.tenant_id,
    'alert_id', p_alert.alert_id,
    'kind', p_kind,
    'at', core.now(),
    'actor_type', core.current_actor_type(),
    'actor', core.current_actor_id(),
    'reason', p_reason,
    'trace_id', coalesce(core.current_trace_id(), p_alert.trace_id))));
end
$$;

comment on function evaluator._publish_act(public.alerts, text, text) is
  'Publish an event of an alert with the acting user as its actor.';
