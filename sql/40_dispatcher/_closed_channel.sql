create function dispatcher._closed_channel(p_tenant_id text, p_channel_id bigint) returns text
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select case when c.channel_id is null then 'channel_deleted' when not c.enabled then 'channel_disabled' end
  from (select p_channel_id) as wanted (channel_id)
  left join public.notification_channels c on c.tenant_id = p_tenant_id and c.channel_id = wanted.channel_id
$$;

comment on function dispatcher._closed_channel(text, bigint) is
  'Why nothing can go to the channel: channel_deleted or channel_disabled; null when it takes notifications.';
