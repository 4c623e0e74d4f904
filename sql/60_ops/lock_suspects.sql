-- Shows no statement: workers call this, and a statement may hold another tenant's values.
create function ops.lock_suspects(p_whole_server boolean default false)
returns table (pid integer, role text, state text, open_seconds double precision, blocks integer)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with waiting as (
    select blocker.pid, count(*)::integer as sessions
    from pg_stat_activity w
    cross join unnest(pg_blocking_pids(w.pid)) as blocker (pid)
    where w.wait_event_type = 'Lock' and w.datname = current_database()
    group by blocker.pid
  )
  select
    a.pid,
    a.usename::text,
    a.state,
    extract(epoch from clock_timestamp() - a.xact_start)::double precision,
    coalesce(w.sessions, 0)
  from pg_stat_activity a
  left join waiting w on w.pid = a.pid
  where a.pid <> pg_backend_pid()
    and a.usename is not null
    and (p_whole_server or a.datname = current_database())
    and (w.pid is not null or a.xact_start is not null or exists (
      select from pg_locks l where l.pid = a.pid and l.granted and l.locktype in ('relation', 'transactionid')
    ))
  order by w.sessions desc nulls last, a.xact_start nulls last
  limit 3;
end;

comment on function ops.lock_suspects(boolean) is
  'Return the sessions that others of this database wait for, then those with the oldest transactions: process id, '
  'role, state, age of the transaction and number of waiting sessions. The age is null for a session that is hidden '
  'from the owner.';
