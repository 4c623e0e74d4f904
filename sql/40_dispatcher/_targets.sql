create function dispatcher._targets(p_event public.alert_events, p_alert public.alerts) returns setof bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select r.channel_id
  from public.notification_routes r
  where p_event.kind in ('opened', 'updated')
    and r.tenant_id = p_alert.tenant_id and r.enabled
    and core.severity_rank(p_alert.severity) >= core.severity_rank(r.min_severity)
    and (r.rule_id is null or r.rule_id = p_alert.rule_id)
    and (r.tag is null or exists (
      select from public.devices d
      where d.tenant_id = p_alert.tenant_id and d.device_id = p_alert.device_id and r.tag = any (d.tags)))
  union
  select j.channel_id
  from public.notification_jobs j
  where p_event.kind = 'updated'
    and j.tenant_id = p_alert.tenant_id and j.alert_id = p_alert.alert_id and j.event_id < p_event.event_id
  union
  select p_event.channel_id
  where p_event.kind = 'escalated'
$$;

comment on function dispatcher._targets(public.alert_events, public.alerts) is
  'Return the channels of an event: by routes when the alert opens, the step''s channel when it escalates, and when its '
  'rule changes those by routes and those that were notified before.';
