-- Runs as the owner, a member of every role of Pulse, so their sessions are shown in full on any server. Sessions of
-- other roles are hidden until an administrator grants pg_read_all_stats to the owner.
create function ops.sessions()
returns table (
  pid integer, role text, application text, trace_id text, state text, waits_for text, blocked_by integer[],
  open_for interval, runs_for interval, connected_for interval, client text, query text
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    a.pid,
    a.usename::text,
    a.application_name,
    substring(a.application_name from '^pulse-\S+ ([0-9a-f]{32})$'),
    case when a.backend_type is null then 'hidden' else a.state end,
    a.wait_event_type || ': ' || a.wait_event,
    -- Called for waiting sessions only, because it stops the lock manager for a moment.
    case when a.wait_event_type = 'Lock' then pg_blocking_pids(a.pid) end,
    clock_timestamp() - a.xact_start,
    clock_timestamp() - a.query_start,
    clock_timestamp() - a.backend_start,
    host(a.client_addr),
    left(a.query, 500)
  from pg_stat_activity a
  where a.datname = current_database()
    and a.pid <> pg_backend_pid()
    and (a.backend_type is null or a.backend_type = 'client backend')
  order by a.xact_start nulls last, a.query_start;
end;

comment on function ops.sessions() is
  'Return the other sessions of this database, oldest transaction first: their activity and its age, what they wait '
  'for, and the sessions that block them. Sessions of roles outside Pulse are hidden until pg_read_all_stats is '
  'granted.';
