create function ingest.rotate_device_token(p_device_id text, p_token_hash bytea) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
begin
  update public.devices d
  set
    token_hash = p_token_hash,
    -- The changed column is not shown, so only the time distinguishes the ETags, even within one tick of the clock.
    updated_at = greatest(clock_timestamp(), d.updated_at + interval '1 microsecond')
  where d.tenant_id = v_tenant_id and d.device_id = p_device_id;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no device %s', p_device_id);
  end if;
  return (select to_jsonb(d) from api.devices d where d.device_id = p_device_id);
end
$$;

comment on function ingest.rotate_device_token(text, bytea) is
  'Replace the SHA-256 of a device''s API token, so that the old token stops working. Raise PU404 for an unknown device.';
