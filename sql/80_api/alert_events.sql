create view api.alert_events as
select
  e.alert_id,
  e.event_id,
  e.kind,
  e.occurred_at,
  e.recorded_at,
  e.dispatched_at,
  e.actor,
  e.message,
  e.value,
  e.changes,
  e.channel_id,
  e.step_number,
  e.trace_id
from public.alert_events e
where e.tenant_id = core.current_tenant();

comment on view api.alert_events is 'Events of the current tenant''s alerts.';
