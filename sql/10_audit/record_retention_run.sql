create function audit.record_retention_run(p_days integer) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
begin atomic
  update audit.retention r set keep_days = p_days, last_run_at = core.now();
end;

comment on function audit.record_retention_run(integer) is
  'Remember that a pass of the retention ended without a fault, and how many days it keeps.';
