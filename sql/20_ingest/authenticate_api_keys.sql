-- As ingest.authenticate_devices.
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
    -- Keeps the planner from hashing all keys for a long list.
    offset 0
  ) k
  left join ingest.api_key_uses u on u.tenant_id = asked.tenant_id and u.key_id = k.key_id
$$;

comment on function ingest.authenticate_api_keys(text[], bytea[]) is
  'The API keys that have these SHA-256 digests, by place (from 1) in the arrays, also those that have ended; no row for '
  'an unknown digest. is_unused: the last recorded use is a minute old.';
