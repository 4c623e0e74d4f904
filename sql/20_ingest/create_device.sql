create function ingest.create_device(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_new public.devices := jsonb_populate_record(null::public.devices, p_body - 'token_hash');
begin
  insert into public.devices as d (tenant_id, device_id, name, tags, token_hash, is_gateway, enabled)
  values (
    v_tenant_id,
    v_new.device_id,
    coalesce(v_new.name, v_new.device_id),
    coalesce(v_new.tags, '{}'),
    decode(p_body ->> 'token_hash', 'hex'),
    coalesce(v_new.is_gateway, false),
    coalesce(v_new.enabled, true)
  )
  returning d.* into v_new;
  perform audit.write(array[audit.event(
    p_tenant_id => v_tenant_id,
    p_event_type => 'device.created',
    p_entity_type => 'device',
    p_entity_id => v_new.device_id,
    p_entity_name => v_new.name,
    p_message => format('device %s created', v_new.device_id),
    p_details => jsonb_build_object('tags', v_new.tags, 'is_gateway', v_new.is_gateway, 'enabled', v_new.enabled))]);
  return (select to_jsonb(d) from api.devices d where d.device_id = v_new.device_id);
end
$$;

comment on function ingest.create_device(jsonb) is
  'Add a device {device_id, name, tags, is_gateway, enabled, token_hash as hex digits} and return it as the API shows it.';
