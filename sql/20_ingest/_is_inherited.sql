create function ingest._is_inherited(p_tenant_id text, p_device_id text, p_reading_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select exists (
    select from public.devices d
    where d.tenant_id = p_tenant_id and d.device_id = p_device_id and d.first_reading_id > p_reading_id)
$$;

comment on function ingest._is_inherited(text, text, bigint) is
  'Return true if the stored reading belongs to a deleted device of the same name.';
