create function ingest.tenants() returns table (tenant_id text, name text, created_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select t.tenant_id, t.name, t.created_at
  from public.tenants t
  order by t.tenant_id
$$;

comment on function ingest.tenants() is
  'Return all tenants by id, for operators. The HTTP API does not call this function: its callers see only their own tenant.';
