-- For people in psql; services call core.act. Sets every part, because settings of the session must not mix with it. The
-- claimed actor is not proven, but the login is: the event has it as the actor's name.
create function audit.act(p_actor text, p_reason text, trace_id text default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  -- The forms that tracing.parse_trace_id accepts.
  v_trace_id text := case
    when trace_id ~ '^[0-9a-f]{32}$' then trace_id
    when trace_id ~ '^[0-9a-fA-F]{8}-([0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}$' then lower(replace(trace_id, '-', ''))
  end;
begin
  if coalesce(btrim(p_actor), '') = '' or coalesce(btrim(p_reason), '') = '' then
    raise exception using
      errcode = 'PU422', message = 'actor and reason are required: select audit.act(''psql:alice'', ''why'')';
  end if;
  if trace_id is not null and nullif(v_trace_id, repeat('0', 32)) is null then
    raise exception using errcode = 'PU422', message = 'a trace id is 32 lower-case hex digits, or a UUID';
  end if;
  -- The bound has 10 minutes of slack, so this is more than 5 minutes ahead. Rows of such a trace would not be found by
  -- its time.
  if core.trace_started_at(v_trace_id) > clock_timestamp() - interval '5 minutes' then
    raise exception using errcode = 'PU422', message = 'the trace id carries a time in the future';
  end if;
  perform
    set_config('pulse.actor_type', 'user', true),
    set_config('pulse.actor_id', p_actor, true),
    set_config('pulse.actor_name', session_user, true),
    set_config('pulse.reason', p_reason, true),
    set_config('pulse.trace_id', coalesce(v_trace_id, ''), true),
    set_config('pulse.span_id', '', true),
    set_config('pulse.ip_address', coalesce(host(inet_client_addr()), ''), true);
end
$$;

comment on function audit.act(text, text, text) is
  'Set actor and reason until the end of the transaction: begin; select audit.act(''psql:alice'', ''why''); …; commit; '
  'With trace_id => ''…'' the changes join that trace. Outside begin … commit the setting ends with the call and '
  'changes nothing.';
