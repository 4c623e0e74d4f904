create function ingest.create_tenant(p_tenant_id text, p_name text) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.tenants (tenant_id, name)
  values (p_tenant_id, p_name)
  on conflict (tenant_id) do nothing;
  if not found then
    return false;
  end if;
  perform audit.write(array[audit.event(
    p_tenant_id => p_tenant_id,
    p_event_type => 'config.tenant_created',
    p_entity_type => 'tenant',
    p_entity_id => p_tenant_id,
    p_entity_name => p_name,
    p_message => format('tenant %s created', p_tenant_id))]);
  return true;
end
$$;

comment on function ingest.create_tenant(text, text) is
  'Add a tenant and return true. Return false if the id exists; that tenant is not changed.';
