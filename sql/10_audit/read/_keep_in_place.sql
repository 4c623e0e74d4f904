-- A function that is stable sees by the snapshot of who called it, and plans each of its queries only when it gets there.
-- Where rows were moved out of the default partition in between, such a plan looks for them in the new partition alone,
-- in which the older snapshot cannot see them. Parent first, as everybody else locks them.
create function audit._keep_in_place() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'PU422',
      message = 'call it in read committed: what was moved before its lock was free must be seen';
  end if;
  lock table only public.audit_log, only public.audit_log_default in access share mode;
end
$$;

comment on function audit._keep_in_place() is
  'From here to the end of the transaction ops.ensure_partitions moves no row, and a snapshot taken from here on sees all '
  'that were. For a volatile function, before what it reads by bounds on timestamp.';
