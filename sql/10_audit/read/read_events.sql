create function audit.read_events(p_filter jsonb, p_place jsonb, p_newest_first boolean, p_limit integer) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform audit._keep_in_place();
  return audit._read_sealed(core.require_tenant(), p_filter, p_place, p_newest_first, p_limit);
end
$$;

comment on function audit.read_events(jsonb, jsonb, boolean, integer) is
  'Return sealed events of the transaction''s tenant, as audit._read_sealed does. Raises PU403 if no tenant is set.';
