create view trace._alert_spans as
select
  a.tenant_id,
  a.trace_id,
  'alert' as kind,
  core.span_id(a.trace_id, 'alert', a.alert_id::text) as span_id,
  array[core.span_id_of_evaluation(a.trace_id, a.tenant_id, a.device_id, a.metric, opened.at)] as parents,
  a.recorded_at as at,
  null::double precision as duration_ms,
  case when a.rule_id is null then 'ops_worker' else 'evaluator_iot' end as service,
  'alert' as entity_type,
  a.alert_id::text as entity_id,
  a.message as what,
  jsonb_build_object(
    'rule', a.rule_name, 'device_id', a.device_id, 'severity', a.severity, 'status', a.status, 'value', a.value
  ) as details
from public.alerts a
left join lateral (
  select coalesce(e.decided_at, e.recorded_at) as at
  from public.alert_events e
  where e.tenant_id = a.tenant_id and e.alert_id = a.alert_id
  order by e.event_id  -- its opening
  limit 1
) opened on true;

comment on view trace._alert_spans is 'Alerts as spans of the trace that opened them.';
