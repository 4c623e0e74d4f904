create function dispatcher.delete_route(p_route_id bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_route public.notification_routes;
begin
  delete from public.notification_routes r
  where r.tenant_id = v_tenant_id and r.route_id = p_route_id
  returning r.* into v_route;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no route %s', p_route_id);
  end if;
  perform audit.write(array[audit.event(
    p_tenant_id => v_tenant_id,
    p_event_type => 'config.route_deleted',
    p_entity_type => 'route',
    p_entity_id => p_route_id::text,
    p_entity_name => v_route.name,
    p_message => format('route %s to channel %s deleted', p_route_id, v_route.channel_id),
    p_details => to_jsonb(v_route) - array['tenant_id', 'created_at', 'updated_at'])]);
end
$$;

comment on function dispatcher.delete_route(bigint) is 'Remove a route; PU404 when there is none.';
