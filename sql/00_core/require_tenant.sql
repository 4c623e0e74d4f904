create function core.require_tenant() returns text
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.current_tenant();
begin
  if v_tenant_id is null then
    raise exception using errcode = 'PU403', message = 'no tenant is set in this transaction';
  end if;
  return v_tenant_id;
end
$$;

comment on function core.require_tenant() is 'Return the tenant of the transaction. Raises PU403 if none is set.';
