create function delivery.delete_channel(p_channel_id bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_users text;
begin
  -- FOR UPDATE also blocks routes and steps that are being added with a reference to it.
  perform
  from public.notification_channels c
  where c.tenant_id = v_tenant_id and c.channel_id = p_channel_id
  for update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no channel %s', p_channel_id);
  end if;
  select string_agg(u.name, ', ' order by u.name) into v_users
  from (
    select format('route %s (%s)', r.route_id, r.name)
    from public.notification_routes r
    where r.tenant_id = v_tenant_id and r.channel_id = p_channel_id
    union
    select format('escalation policy %s (%s)', p.policy_id, p.name)
    from public.escalation_steps s
    join public.escalation_policies p on p.tenant_id = s.tenant_id and p.policy_id = s.policy_id
    where s.tenant_id = v_tenant_id and s.channel_id = p_channel_id
  ) as u (name);
  if v_users is not null then
    raise exception using errcode = 'PU409', message = format('channel %s is used by %s', p_channel_id, v_users);
  end if;
  delete from delivery.lanes l where l.tenant_id = v_tenant_id and l.channel_id = p_channel_id;
  delete from public.notification_channels c where c.tenant_id = v_tenant_id and c.channel_id = p_channel_id;
  -- The jobs that wait for it are given up now, not at the next poll.
  perform core.notify('pulse_delivery');
end
$$;

comment on function delivery.delete_channel(bigint) is
  'Delete a channel. Raise PU404 for an unknown channel, PU409 with their names if routes or escalation policies use it.';
