create function delivery.read_channel_secrets(p_tenant_id text, p_channel_id bigint, p_limit integer)
returns table (tenant_id text, channel_id bigint, config jsonb)
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select c.tenant_id, c.channel_id, c.config
  from public.notification_channels c
  where (c.tenant_id, c.channel_id) > (p_tenant_id, p_channel_id)
  order by c.tenant_id, c.channel_id
  limit p_limit
$$;

comment on function delivery.read_channel_secrets(text, bigint, integer) is
  'Return the configurations, secrets included, of the channels of all tenants after the given one, for sealing them again.';
