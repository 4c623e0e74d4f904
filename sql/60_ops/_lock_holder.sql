create function ops._lock_holder(p_name text)
returns table (pid integer, role text, held_for interval)
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select l.pid, coalesce(a.usename::text, 'a prepared transaction'),
    -- A session that has just ended its transaction shows no start. One that is hidden from the owner shows no type.
    coalesce(
      clock_timestamp() - a.xact_start,
      case when l.pid is null or (a.pid is not null and a.backend_type is null) then interval '1 day' else interval '0' end)
  from ops.work_locks w
  join pg_locks l on l.locktype = 'transactionid' and l.transactionid = w.xmax and l.mode = 'ExclusiveLock' and l.granted
  left join pg_stat_activity a on a.pid = l.pid
  where w.name = p_name
$$;

comment on function ops._lock_holder(text) is
  'Return the transaction that holds a row of ops.work_locks, and its age: one day for a session that is hidden from '
  'the owner.';
