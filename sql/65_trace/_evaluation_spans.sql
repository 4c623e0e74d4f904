-- An evaluation has no row. It is the decision of one pass, a transaction, about one metric of a device.
create view trace._evaluation_spans as
select
  e.tenant_id,
  e.trace_id,
  'evaluation' as kind,
  core.span_id_of_evaluation(e.trace_id, e.tenant_id, a.device_id, a.metric, coalesce(e.decided_at, e.recorded_at)) as span_id,
  array[core.span_id_of_reading(e.trace_id, e.tenant_id, a.device_id, a.metric)] as parents,
  coalesce(e.decided_at, e.recorded_at) as at,
  1000 * extract(epoch from max(e.recorded_at) - coalesce(e.decided_at, e.recorded_at))::double precision as duration_ms,
  'evaluator_iot' as service,
  'device' as entity_type,
  a.device_id as entity_id,
  format('%s evaluated: %s', a.metric, concat_ws(
    ', ',
    nullif(count(*) filter (where e.kind = 'opened'), 0) || ' opened',
    nullif(count(*) filter (where e.kind = 'closed'), 0) || ' closed'
  )) as what,
  jsonb_build_object(
    'metric', a.metric,
    'opened', count(*) filter (where e.kind = 'opened'),
    'closed', count(*) filter (where e.kind = 'closed')
  ) as details
from public.alert_events e
cross join lateral (
  select a.device_id, a.metric
  from public.alerts a
  where a.tenant_id = e.tenant_id and a.alert_id = e.alert_id
  limit 1  -- keeps it a look-up by key
) a
where e.kind in ('opened', 'closed') and e.actor is null and a.device_id is not null
group by e.tenant_id, e.trace_id, a.device_id, a.metric, coalesce(e.decided_at, e.recorded_at);

comment on view trace._evaluation_spans is
  'Decisions of the evaluator as spans of a trace, one row a pass, device and metric.';
