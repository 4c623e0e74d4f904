-- Every role may change the timeouts that it was given, and Postgres offers no way to forbid that. So the ops worker
-- ends transactions of readers that outlived them: they delay vacuum, migrations, retention and the NOTIFY queue.
create function ops.end_overdue_sessions()
returns table (pid integer, role text, reason text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_is_filling constant boolean := pg_notification_queue_usage() >= 0.25;
  v_session record;
begin
  for v_session in
    with reader as (
      select
        a.pid, a.usename::text as role, a.application_name, a.state, a.xact_start, a.state_change, a.backend_xid,
        a.xact_start <= all (
          select o.xact_start
          from pg_stat_activity o
          where o.xact_start is not null and o.backend_type = 'client backend'
        ) as is_oldest
      from pg_stat_activity a
      where a.datname = current_database()
        and a.usename in ('pulse_exporter', 'pulse_auditor', 'pulse_operator')
        and a.xact_start < clock_timestamp() - interval '1 minute'
    )
    select r.*, case
        when v_is_filling and r.is_oldest then 'the NOTIFY queue fills up behind the oldest transaction'
        when r.role = 'pulse_exporter' and r.xact_start < clock_timestamp() - interval '2 minutes'
          then 'its transaction was open for more than 2 minutes'
        when r.backend_xid is not null and r.xact_start < clock_timestamp() - interval '5 minutes'
          then 'its transaction wrote and was open for more than 5 minutes, in which nothing later can be sealed'
        when r.state like 'idle in transaction%' and r.state_change < clock_timestamp() - interval '15 minutes'
          then 'it was idle in a transaction for more than 15 minutes'
      end as reason
    from reader r
  loop
    continue when v_session.reason is null;
    perform audit.write(array[audit.event(
      p_tenant_id => 'system',
      p_event_type => 'system.session_ended',
      p_entity_type => 'session',
      p_entity_id => v_session.pid::text,
      p_message => format('Session %s of %s was ended: %s.', v_session.pid, v_session.role, v_session.reason),
      p_details => jsonb_build_object(
        'role', v_session.role, 'application', v_session.application_name, 'state', v_session.state,
        'open_since', v_session.xact_start, 'database_role', session_user))]);
    perform pg_terminate_backend(v_session.pid);
    pid := v_session.pid;
    role := v_session.role;
    reason := v_session.reason;
    return next;
  end loop;
end
$$;

comment on function ops.end_overdue_sessions() is
  'End the sessions of pulse_exporter, pulse_auditor and pulse_operator whose transaction outlived the timeouts of '
  'their role, and record it. While the NOTIFY queue is a quarter full, the oldest transaction ends after a minute if '
  'it is one of theirs.';
