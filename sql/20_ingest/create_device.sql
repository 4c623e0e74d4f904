create function ingest.create_device(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_new public.devices := jsonb_populate_record(null::public.devices, p_body - 'token_hash');
begin
  insert into public.devices as d (tenant_id, device_id, name, tags, token_hash, is_gateway, enabled, first_reading_id)
  values (
    v_tenant_id,
    v_new.device_id,
    coalesce(v_new.name, v_new.device_id),
    coalesce(v_new.tags, '{}'),
    decode(p_body ->> 'token_hash', 'hex'),
    coalesce(v_new.is_gateway, false),
    coalesce(v_new.enabled, true),
    -- Readings of a deleted device of this name may still be stored. The new device does not inherit them.
    (select s.last_value + s.is_called::integer from public.telemetry_reading_id_seq s)
  )
  returning d.* into v_new;
  delete from public.device_state s where s.tenant_id = v_tenant_id and s.device_id = v_new.device_id;
  return (select to_jsonb(d) from api.devices d where d.device_id = v_new.device_id);
end
$$;

comment on function ingest.create_device(jsonb) is
  'Add a device {device_id, name, tags, is_gateway, enabled, token_hash as hex digits} and return it as the API shows it.';
