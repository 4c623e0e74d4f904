create function ingest.create_api_key(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most constant integer := 1000;
  v_tenant_id text := core.require_tenant();
  v_now timestamptz := clock_timestamp();
  v_days integer := (p_body ->> 'expires_in_days')::integer;
  v_key_id bigint;
begin
  if v_days is null or v_days not between 1 and 366 then
    raise exception using errcode = 'PU422', message = 'a key lasts for 1 to 366 days';
  elsif v_tenant_id = 'system' then
    raise exception using errcode = 'PU422', message = 'system is Pulse''s own tenant and has no API keys';
  end if;
  -- The lock keeps two transactions from passing the limit together. No login can lock this row directly.
  perform from public.tenants t where t.tenant_id = v_tenant_id for no key update;
  if (
    select count(*)
    from public.api_keys k
    where k.tenant_id = v_tenant_id and k.revoked_at is null and k.expires_at > v_now
  ) >= v_most then
    raise exception using
      errcode = 'PU409', message = format('the tenant has %s keys, which is the most: revoke one first', v_most);
  end if;
  insert into public.api_keys as k (tenant_id, name, role, scopes, key_hash, created_at, created_by, expires_at)
  values (
    v_tenant_id,
    p_body ->> 'name',
    p_body ->> 'role',
    array(select distinct s.value from jsonb_array_elements_text(p_body -> 'scopes') as s (value) order by s.value),
    decode(p_body ->> 'key_hash', 'hex'),
    v_now,
    core.current_actor_id(),
    v_now + make_interval(days => v_days)
  )
  returning k.key_id into v_key_id;
  return (select to_jsonb(k) from api.api_keys k where k.key_id = v_key_id);
end
$$;

comment on function ingest.create_api_key(jsonb) is
  'Add an API key {name, role, scopes, expires_in_days, key_hash as hex digits} and return it as the API shows it. Raise '
  'PU422 for more than 366 days or the tenant system, PU409 if the tenant has 1,000 keys in use.';
