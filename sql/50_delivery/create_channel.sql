create function delivery.create_channel(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_new public.notification_channels := jsonb_populate_record(null::public.notification_channels, p_body);
begin
  perform delivery._check_config(v_new.kind, v_new.config);
  insert into public.notification_channels as c (tenant_id, name, kind, config, enabled)
  values (v_tenant_id, v_new.name, v_new.kind, v_new.config, coalesce(v_new.enabled, true))
  returning c.* into v_new;
  perform audit.write(array[audit.event(
    p_tenant_id => v_tenant_id,
    p_event_type => 'config.channel_created',
    p_entity_type => 'channel',
    p_entity_id => v_new.channel_id::text,
    p_entity_name => v_new.name,
    p_message => format('%s channel %s created', v_new.kind, v_new.channel_id),
    p_details => jsonb_build_object(
      'kind', v_new.kind, 'config', delivery._public_config(v_new.kind, v_new.config), 'enabled', v_new.enabled))]);
  return (select to_jsonb(c) from api.channels c where c.channel_id = v_new.channel_id);
end
$$;

comment on function delivery.create_channel(jsonb) is
  'Add a channel {name, kind, config, enabled} and return it without its secrets; PU422 when the kind cannot work with '
  'the configuration.';
