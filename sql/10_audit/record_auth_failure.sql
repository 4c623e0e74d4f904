-- Called on a connection of its own, so that the row survives whatever the refused request does next. It never commits:
-- the caller sends many calls in one transaction. A call repeated with the same id and time stores nothing.
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
declare
  v_event_type text := case p_reason
    when 'forbidden' then 'auth.forbidden'
    when 'rate_limited' then 'auth.rate_limited'
    else 'auth.login_failure'
  end;
begin
  insert into public.audit_log (
    tenant_id, timestamp, event_id, event_type, category, severity, action, message, details, source_service,
    actor_type, actor_id, actor_name, ip_address, trace_id, duration_ms
  )
  values (
    coalesce(p_tenant_id, 'system'), p_timestamp, p_event_id, v_event_type, 'auth', 'warning', split_part(v_event_type, '.', 2),
    coalesce(p_message, 'request refused: ' || p_reason), coalesce(p_details, '{}') || jsonb_build_object('reason', p_reason),
    coalesce(p_source_service, core.current_service(), 'sql'),
    coalesce(p_actor_type, 'anonymous'), p_actor_id, p_actor_name, p_ip_address, p_trace_id, p_duration_ms
  )
  on conflict do nothing;
end
$$;

comment on procedure audit.record_auth_failure is
  'Stores one refused request: auth.forbidden, auth.rate_limited or auth.login_failure by its reason; a repeat changes nothing.';
