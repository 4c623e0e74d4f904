create function delivery.reserve_channel_id() returns bigint
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select nextval(pg_get_serial_sequence('public.notification_channels', 'channel_id'))
$$;

comment on function delivery.reserve_channel_id() is
  'Return an id for a new channel, because its secrets are sealed for that id before the row exists.';
