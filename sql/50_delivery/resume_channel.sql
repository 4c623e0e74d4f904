create function delivery.resume_channel(p_channel_id bigint) returns jsonb
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_channel public.notification_channels;
  v_lane delivery.lanes;
begin
  select c.* into v_channel
  from public.notification_channels c
  where c.tenant_id = v_tenant_id and c.channel_id = p_channel_id
  for no key update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no channel %s', p_channel_id);
  end if;
  if not v_channel.enabled then
    raise exception using errcode = 'PU409', message = format('channel %s is disabled: enable it instead', p_channel_id);
  end if;
  select p.* into v_lane
  from delivery.lanes p
  where p.tenant_id = v_tenant_id and p.channel_id = p_channel_id;
  perform delivery._lift_pause(v_tenant_id, p_channel_id);
  perform audit.write(array[audit.event(
    p_tenant_id => v_tenant_id,
    p_event_type => 'delivery.resumed',
    p_entity_type => 'channel',
    p_entity_id => p_channel_id::text,
    p_entity_name => v_channel.name,
    p_message => format('channel %s sends again at once', p_channel_id),
    p_details => jsonb_strip_nulls(jsonb_build_object(
      'paused_until', case when v_lane.paused_until > core.now() then v_lane.paused_until end, 'reason', v_lane.reason)),
    p_trace_id => core.current_trace_id()
  )]);
  return (select to_jsonb(c) from api.channels c where c.channel_id = p_channel_id);
end
$$;

comment on function delivery.resume_channel(bigint) is
  'End the pause of a channel, make its waiting notifications due and return the channel. Raise PU404 for an unknown channel, '
  'PU409 if it is disabled.';
