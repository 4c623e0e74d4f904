create function ops.set_limit(p_tenant_id text, p_limit_name text, p_value bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_known constant text[] := array(select l.limit_name from public.tenant_limits l where l.tenant_id = 'system' order by 1);
begin
  if p_tenant_id = 'system' then
    raise exception using errcode = 'PU422',
      message = 'the limits of system are the defaults of all tenants: set them by PULSE_LIMIT_* of ops_worker';
  end if;
  if not exists (select from public.tenants t where t.tenant_id = p_tenant_id) then
    raise exception using errcode = 'PU404', message = format('there is no tenant %s', p_tenant_id);
  end if;
  if p_limit_name <> all (v_known) then
    raise exception using errcode = 'PU422',
      message = format('there is no limit %s, only %s', p_limit_name, array_to_string(v_known, ', '));
  end if;
  if p_limit_name = 'evaluation_weight' and p_value not between 1 and 100 then
    raise exception using errcode = 'PU422', message = format('evaluation_weight must be from 1 to 100, not %s', p_value);
  end if;
  if p_value is null then
    delete from public.tenant_limits l where l.tenant_id = p_tenant_id and l.limit_name = p_limit_name;
    return found;
  end if;
  insert into public.tenant_limits as l (tenant_id, limit_name, value, updated_at)
  values (p_tenant_id, p_limit_name, p_value, core.now())
  on conflict (tenant_id, limit_name) do update set value = excluded.value, updated_at = excluded.updated_at
  where l.value <> excluded.value;
  return found;
end
$$;

comment on function ops.set_limit(text, text, bigint) is
  'Give a tenant a limit of its own (0: unlimited), or the default again with null. Return false if that changes '
  'nothing. Raises PU404 for an unknown tenant, PU422 for an unknown limit or a weight outside 1 to 100.';
