create view audit.auth_failures as
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
  details,
  event_id
from public.audit_log
-- The second condition implies the first, which lets the planner take the index of auth events.
where event_type like 'auth.%'
  and event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited');

comment on view audit.auth_failures is 'All refused requests, with reason, origin and claimed identity.';
