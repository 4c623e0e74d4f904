create function dispatcher._targets(p_event public.alert_events, p_alert public.alerts) returns setof bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select distinct r.channel_id
  from public.notification_routes r
  where p_event.kind = 'opened'
    and r.tenant_id = p_alert.tenant_id and r.enabled
    and core.severity_rank(p_alert.severity) >= core.severity_rank(r.min_severity)
    and (r.rule_id is null or r.rule_id = p_alert.rule_id)
    and (r.tag is null or exists (
      select from public.devices d
      where d.tenant_id = p_alert.tenant_id and d.device_id = p_alert.device_id and r.tag = any (d.tags)))
  union all
  select p_event.channel_id
  where p_event.kind = 'escalated'
$$;

comment on function dispatcher._targets(public.alert_events, public.alerts) is
  'Channels that are told of a beginning: by routes when the alert opens, the step''s channel when it escalates.';
