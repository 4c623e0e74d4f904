create function ingest.delete_device(p_device_id text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_old public.devices;
begin
  perform evaluator._forget_device(v_tenant_id, p_device_id, 'device deleted');
  delete from public.devices d
  where d.tenant_id = v_tenant_id and d.device_id = p_device_id
  returning d.* into v_old;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no device %s', p_device_id);
  end if;
  delete from public.device_state s where s.tenant_id = v_tenant_id and s.device_id = p_device_id;
  perform audit.write(array[audit.event(
    p_tenant_id => v_tenant_id,
    p_event_type => 'device.deleted',
    p_entity_type => 'device',
    p_entity_id => p_device_id,
    p_entity_name => v_old.name,
    p_message => format('device %s deleted', p_device_id),
    p_details => jsonb_build_object('tags', v_old.tags, 'is_gateway', v_old.is_gateway, 'enabled', v_old.enabled))]);
end
$$;

comment on function ingest.delete_device(text) is
  'Remove a device and close its alerts; its readings stay until their retention ends. PU404 when there is none.';
