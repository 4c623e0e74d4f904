create function dispatcher.create_route(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_new public.notification_routes := jsonb_populate_record(null::public.notification_routes, p_body);
begin
  insert into public.notification_routes as r (tenant_id, name, channel_id, min_severity, rule_id, tag, enabled)
  values (
    v_tenant_id, v_new.name, v_new.channel_id, coalesce(v_new.min_severity, 'info'), v_new.rule_id, v_new.tag,
    coalesce(v_new.enabled, true)
  )
  returning r.* into v_new;
  return (select to_jsonb(r) from api.routes r where r.route_id = v_new.route_id);
end
$$;

comment on function dispatcher.create_route(jsonb) is
  'Add a route with the members of notification_routes and return it as the API shows it.';
