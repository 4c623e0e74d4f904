create function ingest._leave_groups(p_tenant_id text, p_device_id text, p_tags text[]) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_closed integer;
begin
  v_closed := evaluator.close_alerts(p_tenant_id,
    array(
      select a.alert_id
      from public.alerts a
      join public.alert_rules r on r.tenant_id = a.tenant_id and r.rule_id = a.rule_id
      where a.tenant_id = p_tenant_id and a.device_id = p_device_id and a.status <> 'closed' and r.tag = any (p_tags)),
    'device left the group', core.current_actor_id(), core.current_trace_id());
  delete from public.rule_state s
  using public.alert_rules r
  where s.tenant_id = p_tenant_id and s.device_id = p_device_id
    and r.tenant_id = s.tenant_id and r.rule_id = s.rule_id and r.tag = any (p_tags);
  return v_closed;
end
$$;

comment on function ingest._leave_groups(text, text, text[]) is
  'Close the device''s alerts of rules that watch only these tags, and delete their state. The caller holds the device''s lane.';
