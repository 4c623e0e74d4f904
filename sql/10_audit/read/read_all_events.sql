create function audit.read_all_events(
  p_tenant_id text, p_filter jsonb, p_place jsonb, p_newest_first boolean, p_limit integer
) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform audit._keep_in_place();
  return audit._read_sealed(p_tenant_id, p_filter, p_place, p_newest_first, p_limit);
end
$$;

comment on function audit.read_all_events(text, jsonb, jsonb, boolean, integer) is
  'Return sealed events of one tenant, or of all for null, as audit._read_sealed does. For pulse_auditor, which may '
  'read audit_log anyway.';
