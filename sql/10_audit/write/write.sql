-- Writes a set of events in the caller's transaction, so that a fact and its evidence commit together. Text from people
-- is searched for secrets; text from Pulse services is not.
create function audit.write(p_events public.audit_log[])
returns integer
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_application text := current_setting('application_name');
  -- The login of a service cannot write for another service, and a worker acts only for itself.
  v_own_service constant text := audit._own_service();
  v_is_worker constant boolean := coalesce(v_own_service <> 'ui_iot', false);
  v_service text := coalesce(
    v_own_service, core.current_service(), nullif(regexp_replace(v_application, '^pulse-(\S*).*', '\1'), ''), 'sql');
  -- Without a context, the actor is the process for a service of Pulse, and the role that logged in for others.
  v_is_pulse boolean := v_own_service is not null or core.current_service() is not null or v_application like 'pulse-%';
  v_actor_type text := coalesce(
    case when not v_is_worker then core.current_actor_type() end,
    case when v_is_pulse then 'service' else 'user' end);
  v_actor_id text := audit._printable(
    coalesce(
      case when not v_is_worker then core.current_actor_id() end,
      case when v_is_pulse then v_service else session_user end),
    256);
  v_actor_name text := audit._printable(case when not v_is_worker then core.current_actor_name() end, 256);
  v_ip_address inet := core.current_ip_address();
  v_trace_id text := audit._printable(core.current_trace_id(), 64);
  v_tenant_id text := coalesce(core.current_tenant(), 'system');
  -- Several requests of one trace may run at once. The span identifies the request of this row.
  v_context jsonb := jsonb_strip_nulls(jsonb_build_object(
    'reason', audit._printable(audit._redacted(left(core.current_reason(), 4000)), 2000),
    'request_span_id', core.current_span_id()));
  v_count integer;
begin
  insert into public.audit_log (
    tenant_id, timestamp, event_id, event_type, category, severity, entity_type, entity_id, entity_name, action, message,
    details, source_service, actor_type, actor_id, actor_name, ip_address, trace_id, duration_ms
  )
  select
    coalesce(e.tenant_id, v_tenant_id),
    coalesce(e.timestamp, clock_timestamp()),
    coalesce(e.event_id, core.uuid_v7()),
    e.event_type,
    split_part(e.event_type, '.', 1),
    coalesce(e.severity, t.severity),
    audit._printable(e.entity_type, 64),
    -- The index of entity_id refuses values over 2,704 bytes, which must not abort the caller's transaction.
    audit._printable(e.entity_id, 256),
    audit._printable(e.entity_name, 256),
    split_part(e.event_type, '.', 2),
    coalesce(audit._printable(case when v_is_pulse then e.message else audit._redacted(e.message) end, 2000), t.description),
    v_context || coalesce(
      audit._shortened(case when v_is_pulse then e.details else audit._without_secrets(e.details) end, 65536), '{}'),
    coalesce(e.source_service, v_service),
    -- All parts of the actor come from the event, or all from the context.
    case when e.actor_id is null and e.actor_type is null then v_actor_type else e.actor_type end,
    case when e.actor_id is null and e.actor_type is null then v_actor_id else audit._printable(e.actor_id, 256) end,
    case when e.actor_id is null and e.actor_type is null then v_actor_name else audit._printable(e.actor_name, 256) end,
    coalesce(e.ip_address, v_ip_address),
    coalesce(audit._printable(e.trace_id, 64), v_trace_id),
    e.duration_ms
  from unnest(p_events) with ordinality as e
  join audit.event_types t on t.event_type = e.event_type
  order by e.ordinality;
  get diagnostics v_count = row_count;
  if v_count <> cardinality(p_events) then
    raise exception using
      errcode = 'PU500',
      message = format('event type %L is not in audit.event_types', (
        select e.event_type
        from unnest(p_events) as e
        where not exists (select from audit.event_types t where t.event_type = e.event_type)
        limit 1
      ));
  end if;
  return v_count;
end
$$;

comment on function audit.write is
  'Write the events made by audit.event and return their number. Raises PU500 if the type of one is not in the '
  'registry.';
