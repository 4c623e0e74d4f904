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
  -- Names of such events before the tables were tracked.
  or (category = 'device' and action in ('created', 'updated', 'deleted', 'token_rotated'));

comment on view audit.config_changes is
  'Changes of everything that decides about alerts: devices, rules, channels, routes, policies, silences and all '
  'tracked tables. details hold old and new values. History of one object: select * from audit.config_changes where '
  'entity_type = ''rule'' and entity_id = ''7'' order by timestamp;';
