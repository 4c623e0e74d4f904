create function evaluator._add_tenant_lanes() returns trigger
language plpgsql security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform evaluator._add_lanes(array(select n.tenant_id from new_tenants n));
  return null;
end
$$;

comment on function evaluator._add_tenant_lanes() is
  'Insert the lanes of new tenants. If a pass inserted them, it would block the next pass until it commits.';
