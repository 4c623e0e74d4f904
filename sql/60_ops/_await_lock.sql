create function ops._await_lock(p_name text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_holder record;
begin
  if ops._take_lock(p_name) then
    return;
  end if;
  perform from ops.work_locks w where w.name = p_name for update;
exception when lock_not_available then
  select h.pid, h.role into v_holder from ops._lock_holder(p_name) h;
  raise exception using
    errcode = '55P03',
    message = format(
      'the lock %L was not free in time, held by %s', p_name,
      case when found then format('pid %s of role %s', v_holder.pid, v_holder.role) else 'a session that has ended' end);
end
$$;

comment on function ops._await_lock(text) is
  'Take a lock of ops.work_locks until the transaction ends. Wait as long as the caller''s lock_timeout allows. Raises '
  '55P03 with the process id and role of the lock''s holder.';
