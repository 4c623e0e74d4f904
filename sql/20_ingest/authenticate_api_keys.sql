-- Works like ingest.authenticate_devices.
create function ingest.authenticate_api_keys(p_tenant_ids text[], p_key_hashes bytea[])
returns table (
  place bigint, key_id bigint, key_name text, role text, scopes text[], expires_at timestamptz, revoked boolean,
  is_unused boolean
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select
    asked.place, k.key_id, k.name, k.role, k.scopes, k.expires_at, k.revoked,
    coalesce(u.last_used_at <= core.now() - interval '1 minute', true)
  from unnest(p_tenant_ids, p_key_hashes) with ordinality as asked (tenant_id, key_hash, place)
  cross join lateral (
    select e.key_id, e.name, e.role, e.scopes, e.expires_at, e.revoked_at is not null as revoked
    from public.api_keys e
    where e.tenant_id = asked.tenant_id
      and e.key_hash = asked.key_hash
    -- The limit keeps the planner from hashing all keys for a long list.
    offset 0
  ) k
  left join ingest.api_key_uses u on u.tenant_id = asked.tenant_id and u.key_id = k.key_id
$$;

comment on function ingest.authenticate_api_keys(text[], bytea[]) is
  'Return the API keys with these SHA-256 digests by position (from 1) in the arrays, expired and revoked keys included. An '
  'unknown digest has no row. is_unused: the last recorded use is at least a minute old.';
