create function ops._take_lock(p_name text, p_patience interval default '5 seconds') returns boolean
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_holder record;
begin
  perform from ops.work_locks w where w.name = p_name for update skip locked;
  if found then
    return true;
  end if;
  select h.pid, h.role, h.held_for into v_holder from ops._lock_holder(p_name) h;
  if found and v_holder.held_for > p_patience then
    raise exception using
      errcode = '55P03',
      message = format(
        'the lock %L has been held for longer than %s by pid %s of role %s',
        p_name, p_patience, v_holder.pid, v_holder.role);
  elsif not exists (select from ops.work_locks w where w.name = p_name) then
    raise exception using errcode = 'PU500', message = format('ops.work_locks has no row %L', p_name);
  end if;
  return false;
end
$$;

comment on function ops._take_lock(text, interval) is
  'Take a lock of ops.work_locks until the transaction ends. Return false while another session has it. Raises 55P03 '
  'with that session''s process id and role if its transaction is older than p_patience.';
