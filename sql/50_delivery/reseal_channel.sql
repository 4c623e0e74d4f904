-- The time of the change, and with it the ETag, and a pause stay, because the channel is the same.
create function delivery.reseal_channel(
  p_tenant_id text, p_channel_id bigint, p_old jsonb, p_new jsonb, p_actor text
) returns boolean
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if (select array_agg(o.key order by o.key) from jsonb_object_keys(p_old) as o (key))
    is distinct from (select array_agg(n.key order by n.key) from jsonb_each_text(p_new) n where delivery._is_sealed(n.value))
    or (select count(*) from jsonb_object_keys(p_new)) <> (select count(*) from jsonb_object_keys(p_old))
  then
    raise exception using errcode = 'PU422', message = 'the new configuration must have the same members, all sealed';
  end if;
  perform set_config('pulse.actor_type', 'service', true), set_config('pulse.actor_id', p_actor, true),
    -- The trail names the service that logged in as the actor, so the reason names the operator.
    set_config('pulse.reason', format('the secrets were sealed with another key by %s', p_actor), true),
    set_config('pulse.service', 'delivery_worker', true);
  update public.notification_channels c
  set config = p_new
  where c.tenant_id = p_tenant_id and c.channel_id = p_channel_id and c.config = p_old;
  return found;
end
$$;

comment on function delivery.reseal_channel(text, bigint, jsonb, jsonb, text) is
  'Replace a channel''s configuration by the same one under another key. Return false if it was changed meanwhile.';
