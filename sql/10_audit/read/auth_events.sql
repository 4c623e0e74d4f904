create view audit.auth_events as
select
  timestamp,
  tenant_id,
  event_type,
  details ->> 'reason' as reason,
  ip_address,
  actor_type,
  actor_id,
  actor_name,
  message,
  source_service,
  trace_id,
  duration_ms,
  details,
  event_id
from public.audit_log
where event_type like 'auth.%';

comment on view audit.auth_events is
  'All authentications of users, accepted, refused and refreshed, and all refused devices (accepted ones are '
  'device.authenticated). Example: select * from audit.auth_events order by timestamp desc limit 20;';
