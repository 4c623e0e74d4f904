create function evaluator.silence_alert(p_alert_id bigint, p_until timestamptz) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_alert public.alerts := evaluator._lock_alert(v_tenant_id, p_alert_id);
begin
  if p_until not between core.now() and core.now() + interval '30 days' then
    raise exception using errcode = 'PU422', message = 'until must be in the future and at most 30 days away';
  end if;
  update public.alerts a
  set silenced_until = p_until
  where a.tenant_id = v_tenant_id and a.alert_id = p_alert_id;
  perform ops._reschedule_escalations(v_tenant_id, array[p_alert_id]);
  perform evaluator._publish_act(v_alert, 'silenced', coalesce('until ' || (to_jsonb(p_until) #>> '{}'), 'silence ended'));
  return (select to_jsonb(a) from api.alerts a where a.alert_id = p_alert_id);
end
$$;

comment on function evaluator.silence_alert(bigint, timestamptz) is
  'Send no notification of this alert''s opening or escalation until then; null ends the silence. PU404, PU409 when '
  'closed, PU422 for a time in the past or more than 30 days ahead.';
