-- Composes one event without writing it. A plain row constructor without security definer or SET, which the planner can
-- inline, so that a statement that makes thousands of events pays no function calls. audit.write fills in null members
-- once for the whole set.
create function audit.event(
  p_tenant_id text,
  p_event_type text,
  p_entity_type text default null,
  p_entity_id text default null,
  p_entity_name text default null,
  p_message text default null,
  p_details jsonb default null,
  p_source_service text default null,
  p_actor_type text default null,
  p_actor_id text default null,
  p_actor_name text default null,
  p_trace_id text default null,
  p_ip_address inet default null,
  p_duration_ms double precision default null,
  p_timestamp timestamptz default null,
  p_severity text default null,
  p_event_id uuid default null
) returns public.audit_log
language sql immutable parallel safe
return row(
  p_tenant_id, p_timestamp, p_event_id, null::timestamptz, p_event_type, null::text, p_severity,
  p_entity_type, p_entity_id, p_entity_name, null::text, p_message, p_details, p_source_service,
  p_actor_type, p_actor_id, p_actor_name, p_ip_address, p_trace_id, p_duration_ms, null::xid8
)::public.audit_log;

comment on function audit.event is
  'Return an audit event for audit.write. Omitted members come from the registry and from the transaction''s context.';
