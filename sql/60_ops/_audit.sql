create function ops._audit(
  p_event_type text,
  p_message text,
  p_details jsonb,
  p_entity_type text default null,
  p_entity_id text default null
) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform audit.write(array[
    audit.event(
      p_tenant_id => 'system',
      p_event_type => p_event_type,
      p_entity_type => p_entity_type,
      p_entity_id => p_entity_id,
      p_message => p_message,
      p_details => p_details,
      p_source_service => 'ops_worker',
      p_actor_type => 'service',
      p_actor_id => 'ops_worker'
    )
  ]);
end
$$;

comment on function ops._audit(text, text, jsonb, text, text) is
  'Write one audit event of the tenant ''system'' as ops_worker.';
