-- A stable function sees the snapshot of its caller and plans each query when it gets there. If rows were moved out of
-- the default partition in between, such a plan looks for them only in the new partition, where the older snapshot
-- cannot see them. Locks the parent first, as every other session does.
create function audit._keep_in_place() returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception using
      errcode = 'PU422',
      message = 'call it in read committed: rows that were moved before its lock was free must be visible';
  end if;
  lock table only public.audit_log, only public.audit_log_default in access share mode;
end
$$;

comment on function audit._keep_in_place() is
  'Keep ops.ensure_partitions from moving rows until the end of the transaction. A snapshot taken after this call sees '
  'all rows that were moved before. Volatile functions call it before they read by bounds on timestamp.';
