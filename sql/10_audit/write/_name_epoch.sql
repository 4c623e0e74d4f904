-- A server that is new is recorded with its first row, in the same transaction: a dump of it then shows that rows were
-- written there, also when no sealer ran. A writer that meets another one in this does not wait for it.
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
  'Set the epoch that the default of audit_log.xid reads, once a statement, and record it with the first row of a server.';
