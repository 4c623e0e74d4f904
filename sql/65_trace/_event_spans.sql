create view trace._event_spans as
select
  e.tenant_id,
  e.trace_id,
  'event' as kind,
  core.span_id(e.trace_id, 'event', e.event_id::text) as span_id,
  array[
    core.span_id(e.trace_id, 'alert', e.alert_id::text),
    -- The reading that ends an alert seldom belongs to the trace that began it.
    case when service.name = 'evaluator_iot' then core.span_id_of_evaluation(
      e.trace_id, e.tenant_id, a.device_id, a.metric, coalesce(e.decided_at, e.recorded_at)
    ) end
  ] as parents,
  e.recorded_at as at,
  null::double precision as duration_ms,
  service.name as service,
  'alert' as entity_type,
  e.alert_id::text as entity_id,
  'alert ' || e.kind as what,
  jsonb_build_object(
    'event_id', e.event_id, 'actor', e.actor, 'value', e.value, 'occurred_at', e.occurred_at,
    'dispatched_at', e.dispatched_at
  ) as details
from public.alert_events e
cross join lateral (
  select a.device_id, a.metric
  from public.alerts a
  where a.tenant_id = e.tenant_id and a.alert_id = e.alert_id
  limit 1  -- keeps it a look-up by key
) a
cross join lateral (
  -- People act through the API. Events without an actor were decided by the service itself.
  select case
    when e.kind = 'escalated' then 'ops_worker'
    when e.actor is not null or e.kind in ('acknowledged', 'silenced') then 'ui_iot'
    when a.device_id is null then 'ops_worker'
    else 'evaluator_iot'
  end as name
) service;

comment on view trace._event_spans is 'Alert events as spans of the trace that caused them.';
