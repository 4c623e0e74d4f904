create function evaluator._lock_alert(p_tenant_id text, p_alert_id bigint) returns public.alerts
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_alert public.alerts;
begin
  select a.* into v_alert
  from public.alerts a
  where a.tenant_id = p_tenant_id and a.alert_id = p_alert_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no alert %s', p_alert_id);
  end if;
  if v_alert.status = 'closed' then
    raise exception using errcode = 'PU409', message = format('alert %s is closed', p_alert_id);
  end if;
  return v_alert;
end
$$;

comment on function evaluator._lock_alert(text, bigint) is
  'Lock an alert until the transaction ends and return it. Raise PU404 for an unknown alert, PU409 for a closed one.';
