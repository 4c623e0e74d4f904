create function evaluator._require_device(p_tenant_id text, p_device_id text) returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if p_device_id is not null
    and not exists (select from public.devices d where d.tenant_id = p_tenant_id and d.device_id = p_device_id)
  then
    raise exception using errcode = 'PU422', message = format('there is no device %s for the rule to watch', p_device_id);
  end if;
end
$$;

comment on function evaluator._require_device(text, text) is
  'Raise PU422 if a rule names an unknown device, because such a rule would silently never fire.';
