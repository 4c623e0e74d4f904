-- For callers that refuse one request at a time, with named arguments.
create procedure audit.record_auth_failure(
  p_event_id uuid,
  p_timestamp timestamptz,
  p_tenant_id text,
  p_reason text,
  p_ip_address inet default null,
  p_actor_type text default null,
  p_actor_id text default null,
  p_actor_name text default null,
  p_message text default null,
  p_details jsonb default null,
  p_source_service text default null,
  p_trace_id text default null,
  p_duration_ms double precision default null
)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  call audit.record_auth_failures(jsonb_build_array(jsonb_build_object(
    'event_id', p_event_id,
    'timestamp', p_timestamp,
    'tenant_id', p_tenant_id,
    'details', coalesce(p_details, '{}') || jsonb_build_object('reason', p_reason),
    'ip_address', p_ip_address,
    'actor_type', p_actor_type,
    'actor_id', p_actor_id,
    'actor_name', p_actor_name,
    'message', p_message,
    'source_service', p_source_service,
    'trace_id', p_trace_id,
    'duration_ms', p_duration_ms)));
end
$$;

comment on procedure audit.record_auth_failure is 'Store one refused request, as audit.record_auth_failures does.';
