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
  return (select to_jsonb(c) from api.channels c where c.channel_id = v_new.channel_id);
end
$$;

comment on function delivery.create_channel(jsonb) is
  'Add a channel {name, kind, config, enabled} and return it without its secrets; PU422 when the kind cannot work with '
  'the configuration.';
