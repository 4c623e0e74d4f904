create function dispatcher._payload(
  p_event public.alert_events,
  p_alert public.alerts,
  p_device_name text,
  p_dedup_key text
) returns jsonb
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select jsonb_build_object(
    'kind', p_event.kind,
    'tenant_id', p_event.tenant_id,
    'event_id', p_event.event_id,
    'occurred_at', p_event.occurred_at,
    'step_number', p_event.step_number,
    'trace_id', p_event.trace_id,
    'dedup_key', p_dedup_key,
    'alert', jsonb_build_object(
      'alert_id', p_alert.alert_id,
      'fingerprint', p_alert.fingerprint,
      'rule_id', p_alert.rule_id,
      'rule_name', p_alert.rule_name,
      'device_id', p_alert.device_id,
      'device_name', coalesce(p_alert.device_name, p_device_name),
      'metric', p_alert.metric,
      'severity', p_alert.severity,
      -- The status is that of the event; the alert may have changed since.
      'status', case p_event.kind when 'closed' then 'closed' when 'acknowledged' then 'acknowledged'
        when 'updated' then case when p_alert.acknowledged_at <= p_event.recorded_at then 'acknowledged' else 'open' end
        else 'open' end,
      'message', coalesce(p_event.message, p_alert.message),
      'value', coalesce(p_event.value, p_alert.value),
      'opened_at', p_alert.opened_at,
      'acknowledged_by', case when p_event.kind in ('acknowledged', 'updated', 'closed') then p_alert.acknowledged_by end,
      'closed_at', case when p_event.kind = 'closed' then p_alert.closed_at end,
      'close_reason', case when p_event.kind = 'closed' then p_alert.close_reason end))
$$;

comment on function dispatcher._payload(public.alert_events, public.alerts, text, text) is
  'Return the content of a notification as of the event. Every channel renders this object.';
