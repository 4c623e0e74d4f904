-- Each event and each channel that a route or an escalation step of the tenant names, or that an earlier event of the alert
-- went to, ends in exactly one row: a job or a suppression.
create function dispatcher._decide(p_tenant_ids text[], p_event_ids bigint[]) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set jit = off
as $$
declare
  v_installation public.installation := (select i from public.installation i);
  v_decisions jsonb;
begin
  with event as materialized (
    select
      e as event, a as alert, d.name as device_name, d.tags, e.tenant_id, e.event_id, e.kind,
      coalesce(a.silenced_until > core.now(), false) as silenced
    from unnest(p_tenant_ids, p_event_ids) as i (tenant_id, event_id)
    join public.alert_events e on e.tenant_id = i.tenant_id and e.event_id = i.event_id
    join public.alerts a on a.tenant_id = e.tenant_id and a.alert_id = e.alert_id
    left join public.devices d on d.tenant_id = a.tenant_id and d.device_id = a.device_id
  ), named as materialized (
    select r.tenant_id, r.channel_id
    from public.notification_routes r
    where r.tenant_id in (select tenant_id from event)
    union
    select s.tenant_id, s.channel_id
    from public.escalation_steps s
    where s.tenant_id in (select tenant_id from event)
  ), verdict as (
    -- The closest route decides: a route that matches, else the route whose last condition failed.
    select distinct on (v.tenant_id, v.event_id, v.channel_id) v.*
    from (
      select
        x.tenant_id, x.event_id, r.channel_id, r.route_id,
        case
          when not r.enabled then 'route_disabled'
          when r.rule_id is not null and r.rule_id is distinct from (x.alert).rule_id then 'other_rule'
          when r.tag is not null and not coalesce(r.tag = any (x.tags), false) then 'other_tag'
          when core.severity_rank((x.alert).severity) < core.severity_rank(r.min_severity) then 'below_severity'
        end as reason
      from event x
      join public.notification_routes r on r.tenant_id = x.tenant_id
      where x.kind in ('opened', 'updated')
    ) v
    order by v.tenant_id, v.event_id, v.channel_id,
      array_position('{below_severity,other_tag,other_rule,route_disabled}', v.reason) nulls first, v.route_id
  ), begun as materialized (
    select x.tenant_id, x.event_id, t.channel_id, v.route_id, case
        when x.kind = 'escalated' and (x.event).channel_id is distinct from t.channel_id then 'other_step'
        when x.kind in ('silenced', 'flapping') then 'not_announced'
        when x.kind in ('opened', 'updated') and t.notified is not true and v.channel_id is null then 'no_route'
        when x.kind in ('opened', 'updated') and t.notified is not true and v.reason is not null then v.reason
        when x.kind = 'escalated' and (x.alert).status <> 'open' then 'alert_' || (x.alert).status
        when x.silenced then 'silenced'
        when c.channel_id is null then 'channel_deleted'
        when not c.enabled then 'channel_disabled'
      end as suppressed_because
    from event x
    left join lateral (
      select k.channel_id, bool_or(k.notified) as notified
      from (
        select n.channel_id, false from named n where n.tenant_id = x.tenant_id
        union all
        select (x.event).channel_id, false where (x.event).channel_id is not null
        union all
        -- A change of the rule goes to the channels of the beginning and to those that a route names now.
        select j.channel_id, x.kind = 'updated'
        from public.notification_jobs j
        where j.tenant_id = x.tenant_id and j.alert_id = (x.event).alert_id and j.event_id < x.event_id
      ) k (channel_id, notified)
      group by k.channel_id
    ) t on true
    left join verdict v on v.tenant_id = x.tenant_id and v.event_id = x.event_id and v.channel_id = t.channel_id
    left join public.notification_channels c on c.tenant_id = x.tenant_id and c.channel_id = t.channel_id
    where x.kind in ('opened', 'flapping', 'escalated', 'silenced', 'updated')
  ), ended as (
    -- The end goes exactly to the channels of the beginning, even if the routes have changed since. A disabled channel also
    -- gets a job, which dies like one that waited, so that redriving finds it.
    select x.tenant_id, x.event_id, t.channel_id, null::bigint as route_id, case
        when not coalesce(t.notified, false) then 'not_notified'
        when x.kind = 'acknowledged' and x.silenced then 'silenced'
        when c.channel_id is null then 'channel_deleted'
      end as suppressed_because
    from event x
    left join lateral (
      select k.channel_id, bool_or(k.notified) as notified
      from (
        select j.channel_id, true
        from public.notification_jobs j
        where j.tenant_id = x.tenant_id and j.alert_id = (x.event).alert_id and j.event_id < x.event_id
        union all
        select b.channel_id, true
        from begun b
        join event o on o.tenant_id = b.tenant_id and o.event_id = b.event_id
        where b.suppressed_because is null
          and b.tenant_id = x.tenant_id and (o.event).alert_id = (x.event).alert_id and b.event_id < x.event_id
        union all
        select n.channel_id, false from named n where n.tenant_id = x.tenant_id
      ) k (channel_id, notified)
      group by k.channel_id
    ) t on true
    left join public.notification_channels c on c.tenant_id = x.tenant_id and c.channel_id = t.channel_id
    where x.kind in ('acknowledged', 'closed')
  ), decision as materialized (
    select * from begun
    union all
    select * from ended
  ), job as (
    -- Jobs follow the order of the events, in which a channel receives the events of one rule and device.
    insert into public.notification_jobs as j (tenant_id, event_id, alert_id, channel_id, kind, payload, route_id, trace_id)
    select x.tenant_id, x.event_id, (x.event).alert_id, d.channel_id, x.kind,
      dispatcher._payload(x.event, x.alert, x.device_name, dispatcher._dedup_key(x.alert, v_installation)),
      d.route_id, (x.event).trace_id
    from decision d
    join event x on x.tenant_id = d.tenant_id and x.event_id = d.event_id
    where d.suppressed_because is null
    order by d.event_id, d.channel_id
    on conflict (tenant_id, event_id, channel_id) do nothing
    returning j.tenant_id, j.event_id, j.alert_id, j.channel_id, j.kind, j.job_id, j.trace_id
  ), suppression as (
    insert into public.suppressions as s (tenant_id, event_id, alert_id, channel_id, reason, route_id, trace_id)
    select x.tenant_id, x.event_id, (x.event).alert_id, d.channel_id, d.suppressed_because, d.route_id, (x.event).trace_id
    from decision d
    join event x on x.tenant_id = d.tenant_id and x.event_id = d.event_id
    where d.suppressed_because is not null
    order by d.event_id, d.channel_id
    returning s.tenant_id, s.event_id, s.alert_id, s.channel_id, s.reason, s.trace_id
  )
  select jsonb_agg(d.decision order by d.event_id, d.channel_id)
  into v_decisions
  from (
    select j.event_id, j.channel_id, to_jsonb(j) || '{"decision": "queued"}' from job j
    union all
    -- One entry for each event: most channels of a tenant with many are suppressed for any one event.
    select s.event_id, null, jsonb_build_object(
      'decision', 'suppressed', 'tenant_id', s.tenant_id, 'event_id', s.event_id, 'alert_id', s.alert_id,
      'trace_id', s.trace_id, 'reason', string_agg(distinct s.reason, ', '),
      'channels', jsonb_agg(jsonb_build_object('channel_id', s.channel_id, 'reason', s.reason) order by s.channel_id))
    from suppression s
    group by s.tenant_id, s.event_id, s.alert_id, s.trace_id
  ) as d (event_id, channel_id, decision);
  return coalesce(v_decisions, '[]');
end
$$;

comment on function dispatcher._decide(text[], bigint[]) is
  'Insert the jobs and suppressions of these alert events. Return each job, and one entry for the suppressions of each event.';
