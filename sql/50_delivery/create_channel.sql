create function delivery.create_channel(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_new public.notification_channels := jsonb_populate_record(null::public.notification_channels, p_body);
begin
  perform delivery._check_config(v_new.kind, v_new.config);
  if v_new.channel_id is null then
    v_new.channel_id := delivery.reserve_channel_id();
  elsif v_new.channel_id > (
    select s.last_value from pg_sequences s
    where format('%I.%I', s.schemaname, s.sequencename)
      = pg_get_serial_sequence('public.notification_channels', 'channel_id')
  ) is not false or v_new.channel_id < 1 then
    raise exception using errcode = 'PU422', message = 'this number of a channel was not reserved';
  end if;
  insert into public.notification_channels as c (tenant_id, channel_id, name, kind, config, shown_url, enabled)
  overriding system value
  values (
    v_tenant_id, v_new.channel_id, v_new.name, v_new.kind, v_new.config, v_new.shown_url, coalesce(v_new.enabled, true)
  )
  returning c.* into v_new;
  return (select to_jsonb(c) from api.channels c where c.channel_id = v_new.channel_id);
end
$$;

comment on function delivery.create_channel(jsonb) is
  'Add a channel {name, kind, config, enabled} and return it without its secrets. With sealed members the body also '
  'has channel_id, from delivery.reserve_channel_id, and shown_url. Raise PU422 if the kind cannot work with the configuration.';
