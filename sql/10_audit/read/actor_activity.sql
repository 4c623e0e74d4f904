create view audit.actor_activity as
select
  actor_id,
  timestamp,
  tenant_id,
  event_type,
  entity_type,
  entity_id,
  entity_name,
  message,
  details ->> 'reason' as reason,
  ip_address,
  source_service,
  trace_id,
  actor_name,
  details,
  event_id
from public.audit_log
where actor_type = 'user' and actor_id is not null;

comment on view audit.actor_activity is
  'All events of users, with origin and reason. Example: select * from audit.actor_activity where actor_id = ''alice'' '
  'and timestamp > now() - interval ''1 day'' order by timestamp;';
