create view audit.config_changes as
select
  timestamp,
  tenant_id,
  event_type,
  entity_type,
  entity_id,
  entity_name,
  actor_type,
  actor_id,
  actor_name,
  details ->> 'reason' as reason,
  message,
  details,
  ip_address,
  source_service,
  trace_id,
  event_id
from public.audit_log
where category in ('config', 'rule')
  or event_type in ('device.created', 'device.updated', 'device.deleted', 'device.token_rotated', 'alert.silenced');

comment on view audit.config_changes is
  'Who changed what decides about alerts: devices, rules, channels, routes, policies, silences; details hold old and new values.';
