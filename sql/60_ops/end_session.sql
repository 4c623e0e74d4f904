-- Runs as the owner, a member of every role of Pulse, so Postgres lets it end their sessions and no others. An operator
-- needs no pg_signal_backend, which would cover the sessions of every application on the server.
create function ops.end_session(p_pid integer)
returns text
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_session record;
begin
  select a.pid, a.usename, a.application_name, a.state, a.query, a.xact_start, r.oid as role_id
  into v_session
  from pg_stat_activity a
  join pg_roles r on r.oid = a.usesysid
  where a.pid = p_pid and a.datname = current_database() and a.pid <> pg_backend_pid();
  if not found then
    raise exception using errcode = 'PU404', message = format('database %I has no other session %s', current_database(), p_pid);
  end if;
  if not pg_has_role(v_session.role_id, 'usage') then
    raise exception using
      errcode = 'PU403',
      message = format('session %s belongs to %s, which is no role of Pulse', p_pid, v_session.usename),
      hint = format('Ask an administrator of the server: select pg_terminate_backend(%s)', p_pid);
  end if;
  perform audit.write(array[audit.event(
    p_tenant_id => 'system',
    p_event_type => 'system.session_ended',
    p_entity_type => 'session',
    p_entity_id => p_pid::text,
    p_message => format('Session %s of %s was ended.', p_pid, v_session.usename),
    p_details => jsonb_build_object(
      'role', v_session.usename, 'application', v_session.application_name, 'state', v_session.state,
      'open_since', v_session.xact_start, 'database_role', session_user))]);
  perform pg_terminate_backend(p_pid);
  return format('session %s of %s (%s) was ended', p_pid, v_session.usename, v_session.application_name);
end
$$;

comment on function ops.end_session(integer) is
  'End a session of a role of Pulse in this database and record the actor. Its open transaction is rolled back. Raises '
  'PU404 if there is no such session, PU403 if it belongs to a role outside Pulse.';
