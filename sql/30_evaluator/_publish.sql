create function evaluator._publish(p_events jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_events public.audit_log[];
begin
  with event as materialized (
    select e.tenant_id, e.alert_id, e.kind, e.at, e.actor_type, core.visible_text(e.actor) as actor,
      core.visible_text(e.reason) as reason, e.value, e.received_at, e.changes, core.visible_text(e.message) as message,
      e.trace_id, e.ordinality
    from rows from (jsonb_to_recordset(p_events)
      as (tenant_id text, alert_id bigint, kind text, at timestamptz, actor_type text, actor text, reason text,
        value double precision, received_at timestamptz, changes integer, message text, trace_id text)) with ordinality as e
  ), published as (
    -- The given order is kept, so that the events of one alert get ascending ids.
    insert into public.alert_events
      (tenant_id, alert_id, kind, occurred_at, actor, value, reading_received_at, changes, message, trace_id)
    select e.tenant_id, e.alert_id, e.kind, e.at, e.actor, e.value, e.received_at, e.changes, e.message, e.trace_id
    from event e
    order by e.ordinality
    returning tenant_id, alert_id, kind, event_id
  )
  select array_agg(audit.event(
      p_tenant_id => e.tenant_id,
      p_event_type => 'alert.' || e.kind,
      p_entity_type => 'alert',
      p_entity_id => e.alert_id::text,
      p_entity_name => a.rule_name,
      p_message => format('alert %s %s: %s', e.alert_id, e.kind, coalesce(e.message, a.message)),
      p_details => jsonb_strip_nulls(jsonb_build_object(
        'event_id', p.event_id, 'fingerprint', a.fingerprint, 'device_id', a.device_id, 'metric', a.metric,
        'severity', a.severity, 'value', e.value, 'occurred_at', e.at, 'reason', e.reason, 'changes', e.changes)),
      p_source_service => coalesce(audit._own_service(), core.current_service(), 'evaluator_iot'),
      p_actor_type => coalesce(e.actor_type, 'service'),
      p_actor_id => coalesce(e.actor, 'evaluator_iot'),
      p_trace_id => e.trace_id) order by e.ordinality)
  into v_events
  from event e
  join published p using (tenant_id, alert_id, kind)  -- a batch has at most one event of a kind for an alert
  join public.alerts a on a.tenant_id = e.tenant_id and a.alert_id = e.alert_id;
  perform audit.write(v_events);
  perform core.notify('pulse_dispatcher');
end
$$;

comment on function evaluator._publish(jsonb) is
  'Write the alert events [{tenant_id, alert_id, kind, at, actor_type, actor, reason, value, received_at, changes, '
  'message, trace_id}] in this order, with their audit events, and wake the dispatcher.';
