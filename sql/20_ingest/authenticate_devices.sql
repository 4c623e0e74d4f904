-- The arrays are joined by position, so that one round trip answers many requests, each with one probe of the unique index.
create function ingest.authenticate_devices(p_tenant_ids text[], p_token_hashes bytea[])
returns table (place bigint, device_id text, device_name text, is_gateway boolean, enabled boolean)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select asked.place, d.device_id, d.name, d.is_gateway, d.enabled
  from unnest(p_tenant_ids, p_token_hashes) with ordinality as asked (tenant_id, token_hash, place)
  cross join lateral (
    select e.device_id, e.name, e.is_gateway, e.enabled
    from public.devices e
    where e.tenant_id = asked.tenant_id
      and e.token_hash = asked.token_hash
    -- The limit keeps the planner from hashing all devices for a long list.
    offset 0
  ) d
$$;

comment on function ingest.authenticate_devices(text[], bytea[]) is
  'Return the devices whose API tokens have these SHA-256 digests by position (from 1) in the arrays. An unknown digest has no row.';
