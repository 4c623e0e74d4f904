create function audit.record_read(
  p_reader text,
  p_filter jsonb,
  p_events bigint,
  p_tenant_id text default null
) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform audit.write(array[audit.event(
    p_tenant_id => coalesce(p_tenant_id, 'system'),
    p_event_type => 'audit.read',
    p_message => concat(p_reader, ' read ', p_events || ' events of ', 'the audit trail'),
    p_details => jsonb_build_object('filter', p_filter, 'events', p_events, 'role', session_user),
    p_actor_type => 'user',
    p_actor_id => p_reader)]);
end
$$;

comment on function audit.record_read(text, jsonb, bigint, text) is
  'Record that a person reads the audit trail as pulse_auditor: reader, filter, number of events (null: not known yet) '
  'and tenant (null: all).';
