create view audit.recent as
select
  timestamp,
  tenant_id,
  event_type,
  severity,
  message,
  entity_type,
  entity_id,
  actor_id,
  ip_address,
  source_service,
  trace_id
from public.audit_log
where timestamp > now() - interval '1 hour'
order by timestamp desc, event_id desc;

comment on view audit.recent is 'Events of the last hour, newest first.';
