create function audit._name_epoch() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform set_config('pulse.audit_epoch', audit._epoch()::text, true);
  return null;
end
$$;

comment on function audit._name_epoch() is 'Set the epoch that the default of audit_log.xid reads, once a statement.';
