create function delivery.update_channel(p_channel_id bigint, p_patch jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_old public.notification_channels;
  v_new public.notification_channels;
  v_changes jsonb;
begin
  select c.* into v_old
  from public.notification_channels c
  where c.tenant_id = v_tenant_id and c.channel_id = p_channel_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no channel %s', p_channel_id);
  end if;
  v_new := jsonb_populate_record(v_old, p_patch - array['tenant_id', 'channel_id', 'kind', 'config', 'created_at', 'updated_at']);
  -- Secrets are never shown, so a change of the address must be able to leave them as they are.
  v_new.config := jsonb_strip_nulls(v_old.config || coalesce(p_patch -> 'config', '{}'));
  perform delivery._check_config(v_new.kind, v_new.config);
  v_changes := core._changes(to_jsonb(v_old) - 'config', to_jsonb(v_new) - 'config');
  if v_new.config <> v_old.config then
    v_changes := v_changes || jsonb_build_object('config', jsonb_build_array(
      delivery._public_config(v_old.kind, v_old.config), delivery._public_config(v_new.kind, v_new.config)));
  end if;
  if v_changes <> '{}' then
    update public.notification_channels c
    set name = v_new.name, config = v_new.config, enabled = v_new.enabled, updated_at = clock_timestamp()
    where c.tenant_id = v_tenant_id and c.channel_id = p_channel_id;
    perform audit.write(array[audit.event(
      p_tenant_id => v_tenant_id,
      p_event_type => 'config.channel_updated',
      p_entity_type => 'channel',
      p_entity_id => p_channel_id::text,
      p_entity_name => v_new.name,
      p_message => format('%s channel %s changed', v_new.kind, p_channel_id),
      p_details => jsonb_build_object('changes', v_changes))]);
    perform pg_notify('pulse_delivery', '');
  end if;
  return (select to_jsonb(c) from api.channels c where c.channel_id = p_channel_id);
end
$$;

comment on function delivery.update_channel(bigint, jsonb) is
  'Change the members that p_patch names, of config too, and return the channel without its secrets; PU404 when there is '
  'none, PU422 when the kind cannot work with the result.';
