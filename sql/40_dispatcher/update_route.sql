create function dispatcher.update_route(p_route_id bigint, p_patch jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_old public.notification_routes;
  v_new public.notification_routes;
  v_changes jsonb;
begin
  select r.* into v_old
  from public.notification_routes r
  where r.tenant_id = v_tenant_id and r.route_id = p_route_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no route %s', p_route_id);
  end if;
  v_new := jsonb_populate_record(v_old, p_patch - array['tenant_id', 'route_id', 'created_at', 'updated_at']);
  v_changes := core._changes(to_jsonb(v_old), to_jsonb(v_new));
  if v_changes <> '{}' then
    update public.notification_routes r
    set (name, channel_id, min_severity, rule_id, tag, enabled, updated_at) = (
      v_new.name, v_new.channel_id, v_new.min_severity, v_new.rule_id, v_new.tag, v_new.enabled, clock_timestamp())
    where r.tenant_id = v_tenant_id and r.route_id = p_route_id;
  end if;
  return (select to_jsonb(r) from api.routes r where r.route_id = p_route_id);
end
$$;

comment on function dispatcher.update_route(bigint, jsonb) is
  'Change the members that p_patch names and return the route. Raise PU404 for an unknown route.';
