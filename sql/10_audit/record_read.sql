create function audit.record_read(p_actor text, p_filter jsonb, p_rows bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'audit.read',
    p_message => 'audit trail read',
    p_details => jsonb_build_object('filter', p_filter, 'events', p_rows),
    p_actor_type => 'user',
    p_actor_id => p_actor)]);
end
$$;

comment on function audit.record_read(text, jsonb, bigint) is
  'Record that somebody reads the audit trail as pulse_auditor: who, with which filter, how many rows (null: not known yet).';
