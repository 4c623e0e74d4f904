create view trace._suppression_spans as
select
  s.tenant_id,
  s.trace_id,
  'suppression' as kind,
  core.span_id(s.trace_id, 'suppression', s.suppression_id::text) as span_id,
  array[core.span_id(s.trace_id, 'event', s.event_id::text)] as parents,
  s.recorded_at as at,
  null::double precision as duration_ms,
  'dispatcher' as service,
  'alert' as entity_type,
  s.alert_id::text as entity_id,
  coalesce('channel ' || s.channel_id || ' not notified: ', 'no channel notified: ') || s.reason as what,
  jsonb_build_object('event_id', s.event_id, 'channel_id', s.channel_id, 'reason', s.reason) as details
from public.suppressions s;

comment on view trace._suppression_spans is 'Suppressions as spans of the alert event''s trace.';
