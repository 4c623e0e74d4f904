create function ingest.revoke_api_key(p_key_id bigint) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_key public.api_keys;
begin
  select k.* into v_key
  from public.api_keys k
  where k.tenant_id = v_tenant_id and k.key_id = p_key_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no API key %s', p_key_id);
  end if;
  if v_key.revoked_at is null then
    update public.api_keys k
    set revoked_at = clock_timestamp(), revoked_by = core.current_actor_id()
    where k.tenant_id = v_tenant_id and k.key_id = p_key_id;
    perform audit.write(array[audit.event(
      p_tenant_id => v_tenant_id,
      p_event_type => 'auth.api_key_revoked',
      p_entity_type => 'api_key',
      p_entity_id => p_key_id::text,
      p_entity_name => v_key.name,
      p_message => format('API key %s revoked', p_key_id))]);
  end if;
  return (select to_jsonb(k) from api.api_keys k where k.key_id = p_key_id);
end
$$;

comment on function ingest.revoke_api_key(bigint) is
  'Revoke an API key and return it as the API shows it. A key that is revoked already is not changed. Raise PU404 for an '
  'unknown key.';
