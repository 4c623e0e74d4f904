create function ingest.delete_device(p_device_id text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
begin
  perform evaluator._forget_device(v_tenant_id, p_device_id, 'device deleted');
  update public.alert_rules r
  set enabled = false, disabled_reason = format('device %s was deleted', p_device_id), updated_at = clock_timestamp()
  where r.tenant_id = v_tenant_id and r.device_id = p_device_id and r.enabled;
  delete from public.devices d
  where d.tenant_id = v_tenant_id and d.device_id = p_device_id;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no device %s', p_device_id);
  end if;
  delete from public.device_state s where s.tenant_id = v_tenant_id and s.device_id = p_device_id;
end
$$;

comment on function ingest.delete_device(text) is
  'Delete a device, close its alerts and disable the rules that name it. Its readings are kept until their retention ends. '
  'Raise PU404 for an unknown device.';
