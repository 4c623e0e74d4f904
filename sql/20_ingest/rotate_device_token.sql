create function ingest.rotate_device_token(p_device_id text, p_token_hash bytea) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_name text;
begin
  update public.devices d
  set token_hash = p_token_hash, updated_at = clock_timestamp()
  where d.tenant_id = v_tenant_id and d.device_id = p_device_id
  returning d.name into v_name;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no device %s', p_device_id);
  end if;
  perform audit.write(array[audit.event(
    p_tenant_id => v_tenant_id,
    p_event_type => 'device.token_rotated',
    p_entity_type => 'device',
    p_entity_id => p_device_id,
    p_entity_name => v_name,
    p_message => format('device %s got a new API token', p_device_id))]);
  return (select to_jsonb(d) from api.devices d where d.device_id = p_device_id);
end
$$;

comment on function ingest.rotate_device_token(text, bytea) is
  'Replace the SHA-256 of a device''s API token, so that the old token stops working; PU404 when there is no such device.';
