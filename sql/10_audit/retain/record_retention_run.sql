create function audit.record_retention_run() returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
begin atomic
  update audit.retention r set last_run_at = core.now();
end;

comment on function audit.record_retention_run() is 'Record that a retention pass ended without a fault.';
