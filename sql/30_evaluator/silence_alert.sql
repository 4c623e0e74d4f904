create function evaluator.silence_alert(p_alert_id bigint, p_until timestamptz) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_fingerprint text := (
    select a.fingerprint from public.alerts a where a.tenant_id = v_tenant_id and a.alert_id = p_alert_id);
  v_silenced boolean;
  v_alert public.alerts;
begin
  if p_until not between core.now() and core.now() + interval '30 days' then
    raise exception using errcode = 'PU422', message = 'until must be in the future and at most 30 days away';
  end if;
  -- A silence outlives its alert, because the reopened alert continues it. So the silence of a closed alert can be ended.
  select true into v_silenced
  from evaluator.silences s
  where s.tenant_id = v_tenant_id and s.fingerprint = v_fingerprint and s.silenced_until > core.now();
  if p_until is null and v_silenced then
    select a.* into v_alert
    from public.alerts a
    where a.tenant_id = v_tenant_id and a.fingerprint = v_fingerprint
      and (a.status <> 'closed' or a.alert_id = p_alert_id)
    order by a.status = 'closed'
    limit 1
    for no key update;
  else
    v_alert := evaluator._lock_alert(v_tenant_id, p_alert_id);
  end if;
  delete from evaluator.silences s
  where s.tenant_id = v_tenant_id and (s.fingerprint = v_fingerprint or s.silenced_until <= core.now());
  if p_until is not null then
    insert into evaluator.silences (tenant_id, fingerprint, silenced_until)
    values (v_tenant_id, v_fingerprint, p_until);
  end if;
  update public.alerts a
  set silenced_until = p_until
  where a.tenant_id = v_tenant_id and a.alert_id = v_alert.alert_id;
  perform ops._reschedule_escalations(v_tenant_id, array[v_alert.alert_id]);
  perform evaluator._publish_act(v_alert, 'silenced', coalesce('until ' || (to_jsonb(p_until) #>> '{}'), 'silence ended'));
  return (select to_jsonb(a) from api.alerts a where a.alert_id = p_alert_id);
end
$$;

comment on function evaluator.silence_alert(bigint, timestamptz) is
  'Send no notification about the opening, updates, acknowledgement or escalation of this alert, and of later alerts of its '
  'rule and device, until p_until. null ends the silence, even if the alert has closed. Raise PU404 for an unknown alert, PU409 '
  'for a closed one, PU422 for a time in the past or more than 30 days ahead.';
