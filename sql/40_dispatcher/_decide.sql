create function dispatcher._decide(p_tenant_ids text[], p_event_ids bigint[]) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_decisions jsonb;
begin
  with event as materialized (
    select e as event, a as alert, d.name as device_name
    from unnest(p_tenant_ids, p_event_ids) as i (tenant_id, event_id)
    join public.alert_events e on e.tenant_id = i.tenant_id and e.event_id = i.event_id
    join public.alerts a on a.tenant_id = e.tenant_id and a.alert_id = e.alert_id
    left join public.devices d on d.tenant_id = a.tenant_id and d.device_id = a.device_id
  ), begun as materialized (
    select x.event, x.alert, x.device_name, t.channel_id,
      case
        when t.channel_id is null then 'no_route'
        when (x.alert).silenced_until > core.now() then 'silenced'
        else dispatcher._closed_channel((x.event).tenant_id, t.channel_id)
      end as suppressed_because
    from event x
    left join lateral dispatcher._targets(x.event, x.alert) as t (channel_id) on true
    where (x.event).kind in ('opened', 'escalated', 'updated')
  ), ended as (
    -- Who was told of the trouble is told of its end, whatever the routes say by now; nobody else is.
    select x.event, x.alert, x.device_name, t.channel_id,
      case
        when t.channel_id is null then 'not_notified'
        else dispatcher._closed_channel((x.event).tenant_id, t.channel_id)
      end as suppressed_because
    from event x
    left join lateral (
      select j.channel_id
      from public.notification_jobs j
      where j.tenant_id = (x.event).tenant_id and j.alert_id = (x.event).alert_id and j.event_id < (x.event).event_id
      union
      select b.channel_id
      from begun b
      where b.suppressed_because is null
        and (b.event).tenant_id = (x.event).tenant_id and (b.event).alert_id = (x.event).alert_id
        and (b.event).event_id < (x.event).event_id
    ) t on true
    where (x.event).kind in ('acknowledged', 'closed')
  ), target as materialized (
    select * from begun
    union all
    select * from ended
  ), job as (
    -- In the order of the events: that is the order in which one channel hears of one rule and device.
    insert into public.notification_jobs as j (tenant_id, event_id, alert_id, channel_id, kind, payload, trace_id)
    select (t.event).tenant_id, (t.event).event_id, (t.event).alert_id, t.channel_id, (t.event).kind,
      dispatcher._payload(t.event, t.alert, t.device_name), (t.event).trace_id
    from target t
    where t.suppressed_because is null
    order by (t.event).event_id, t.channel_id
    on conflict (tenant_id, event_id, channel_id) do nothing
    returning j.tenant_id, j.event_id, j.alert_id, j.channel_id, j.kind, j.job_id, j.trace_id
  ), suppression as (
    insert into public.suppressions as s (tenant_id, event_id, alert_id, channel_id, reason, trace_id)
    select (t.event).tenant_id, (t.event).event_id, (t.event).alert_id, t.channel_id, t.suppressed_because,
      (t.event).trace_id
    from target t
    where t.suppressed_because is not null
    order by (t.event).event_id, t.channel_id
    returning s.tenant_id, s.event_id, s.alert_id, s.channel_id, s.reason, s.trace_id
  )
  select jsonb_agg(d.decision order by d.event_id, d.channel_id)
  into v_decisions
  from (
    select j.event_id, j.channel_id, to_jsonb(j) || '{"decision": "queued"}' from job j
    union all
    select s.event_id, s.channel_id, to_jsonb(s) || '{"decision": "suppressed"}' from suppression s
  ) as d (event_id, channel_id, decision);
  return coalesce(v_decisions, '[]');
end
$$;

comment on function dispatcher._decide(text[], bigint[]) is
  'Make the jobs and suppressions of these alert events and return them.';
