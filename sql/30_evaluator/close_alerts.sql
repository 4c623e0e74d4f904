create function evaluator.close_alerts(
  p_tenant_id text,
  p_alert_ids bigint[],
  p_reason text,
  p_actor text,
  p_trace_id text
) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_closures jsonb;
begin
  -- Passes lock the lane, then rule_state, then the alert; taking the lane first here rules a deadlock out.
  perform evaluator._lock_lanes(p_tenant_id, array(
    select distinct core.shard_of(a.tenant_id, a.device_id)
    from public.alerts a
    where a.tenant_id = p_tenant_id and a.alert_id = any (p_alert_ids) and a.device_id is not null));
  with ended as (
    delete from public.rule_state s
    using public.alerts a
    where a.tenant_id = p_tenant_id and a.alert_id = any (p_alert_ids) and a.status <> 'closed'
      and s.tenant_id = a.tenant_id and s.rule_id = a.rule_id and s.device_id = a.device_id
    returning a.alert_id, s.last_value
  )
  select jsonb_agg(jsonb_build_object(
    'tenant_id', a.tenant_id, 'fingerprint', a.fingerprint, 'at', core.now(), 'reason', p_reason,
    'actor_type', core.current_actor_type(), 'actor', p_actor, 'value', e.last_value, 'trace_id', p_trace_id)
    order by a.alert_id)
  into v_closures
  from public.alerts a
  left join ended e on e.alert_id = a.alert_id
  where a.tenant_id = p_tenant_id and a.alert_id = any (p_alert_ids) and a.status <> 'closed';
  return evaluator._close(coalesce(v_closures, '[]'));
end
$$;

comment on function evaluator.close_alerts(text, bigint[], text, text, text) is
  'Close these alerts outside a pass, for p_reason, and return the number that were not closed before. A rule whose condition '
  'still holds opens a new alert at the next reading.';
