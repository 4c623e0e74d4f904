create function ingest.authenticate_device(p_tenant_id text, p_token_hash bytea)
returns table (device_id text, device_name text, is_gateway boolean, enabled boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select d.device_id, d.name, d.is_gateway, d.enabled
  from public.devices d
  where d.tenant_id = p_tenant_id
    and d.token_hash = p_token_hash
$$;

comment on function ingest.authenticate_device(text, bytea) is
  'The device whose API token has this SHA-256, no row when there is none.';
