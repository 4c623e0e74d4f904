create function delivery.update_channel(p_channel_id bigint, p_patch jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_old public.notification_channels;
  v_new public.notification_channels;
  v_secret text;
begin
  select c.* into v_old
  from public.notification_channels c
  where c.tenant_id = v_tenant_id and c.channel_id = p_channel_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no channel %s', p_channel_id);
  end if;
  v_new := jsonb_populate_record(v_old, p_patch - array[
    'tenant_id', 'channel_id', 'kind', 'config', 'disabled_reason', 'created_at', 'updated_at']);
  -- Secrets are never shown, so a change of one member can leave the others as they are. A new address inherits nothing:
  -- otherwise a caller that may move a channel would receive its secrets.
  v_new.config := jsonb_strip_nulls(
    case when p_patch -> 'config' ? 'url' then '{}' else v_old.config end || coalesce(p_patch -> 'config', '{}'));
  v_secret := (array_remove(delivery._required_members(v_old.kind), 'url'))[1];
  if p_patch -> 'config' ? 'url' and not v_new.config ? v_secret then
    raise exception using errcode = 'PU422', message = format(
      'a change of config.url needs config.%s in the same request: a secret is not sent to an address that it was not '
      'given for', v_secret);
  end if;
  perform delivery._check_config(v_new.kind, v_new.config);
  if v_new is distinct from v_old then
    update public.notification_channels c
    set
      name = v_new.name,
      config = v_new.config,
      shown_url = v_new.shown_url,
      enabled = v_new.enabled,
      -- Secrets are not shown, so only the time distinguishes the ETags, even within one tick of the clock.
      updated_at = greatest(clock_timestamp(), c.updated_at + interval '1 microsecond'),
      disabled_reason = case when v_new.enabled is not distinct from v_old.enabled then v_old.disabled_reason end
    where c.tenant_id = v_tenant_id and c.channel_id = p_channel_id;
    perform core.notify('pulse_delivery');
    -- A pause of the old address does not apply to the new one.
    if v_new.config <> v_old.config or (v_new.enabled and not v_old.enabled) then
      perform delivery._lift_pause(v_tenant_id, p_channel_id);
    end if;
  end if;
  return (select to_jsonb(c) from api.channels c where c.channel_id = p_channel_id);
end
$$;

comment on function delivery.update_channel(bigint, jsonb) is
  'Change the members that p_patch names, those of config included, and return the channel without its secrets. A new address '
  'needs the channel''s secret in the same patch and replaces the whole configuration. A new configuration, and enabling, end a '
  'pause. Raise PU404 for an unknown channel, PU422 if the kind cannot work with the result.';
