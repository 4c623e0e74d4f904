create function audit.record_process(p_service text, p_instance text, p_event text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- _own_service() leaves out pulse_ops, because a person may log in as it. But a process with this role is the ops worker.
  v_service constant text := coalesce(
    audit._own_service(), case session_user when 'pulse_ops' then 'ops_worker' end, p_service);
begin
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => case p_event when 'started' then 'system.started' when 'stopped' then 'system.stopped' end,
    p_entity_type => 'service',
    p_entity_id => p_instance,
    p_entity_name => v_service,
    p_message => format('%s %s %s', v_service, p_instance, p_event),
    p_source_service => v_service,
    p_actor_type => 'service',
    p_actor_id => v_service)]);
  perform ops._count_process(v_service, p_event);
end
$$;

comment on function audit.record_process(text, text, text) is
  'Record that a process (instance: host and process id) started or stopped cleanly. A start without a stop is a crash.';
