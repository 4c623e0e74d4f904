create function ingest.note_api_key_use(p_tenant_id text, p_key_id bigint) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
begin atomic
  insert into ingest.api_key_uses as u (tenant_id, key_id, last_used_at)
  select k.tenant_id, k.key_id, core.now()
  from public.api_keys k
  where k.tenant_id = p_tenant_id and k.key_id = p_key_id
  on conflict (tenant_id, key_id) do update
  set last_used_at = excluded.last_used_at
  where u.last_used_at <= excluded.last_used_at - interval '1 minute';
end;

comment on function ingest.note_api_key_use(text, bigint) is
  'Record that an API key was accepted now, unless a use within the last minute is recorded.';
