create function dispatcher.delete_route(p_route_id bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
begin
  delete from public.notification_routes r
  where r.tenant_id = v_tenant_id and r.route_id = p_route_id;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no route %s', p_route_id);
  end if;
end
$$;

comment on function dispatcher.delete_route(bigint) is 'Delete a route. Raise PU404 for an unknown route.';
