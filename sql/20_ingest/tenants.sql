create function ingest.tenants() returns table (tenant_id text, name text, created_at timestamptz)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select t.tenant_id, t.name, t.created_at
  from public.tenants t
  order by t.tenant_id
$$;

comment on function ingest.tenants() is
  'Every tenant, by id: for those who run Pulse. The HTTP API does not call it, for its callers see their own tenant only.';
