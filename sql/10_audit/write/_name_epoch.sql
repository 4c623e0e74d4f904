-- A new server is recorded with its first row, in the same transaction. Its dump then shows that rows were written
-- there, even if no sealer ran. A writer does not wait for another one that records the server.
create function audit._name_epoch() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_epoch constant bigint := audit._epoch();
begin
  perform set_config('pulse.audit_epoch', v_epoch::text, true);
  if not exists (select from audit.epochs e where e.epoch = v_epoch) then
    perform from ops.work_locks w where w.name = 'audit_epoch' for update skip locked;
    if found then
      perform audit.register_epoch();
    end if;
  end if;
  return null;
end
$$;

comment on function audit._name_epoch() is
  'Set the epoch that the default of audit_log.xid reads, once a statement, and record the server with its first row.';
