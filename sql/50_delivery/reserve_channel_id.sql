create function delivery.reserve_channel_id() returns bigint
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
  select nextval(pg_get_serial_sequence('public.notification_channels', 'channel_id'))
$$;

comment on function delivery.reserve_channel_id() is
  'A number for a channel that is made next: its secrets are sealed for that number before the row exists.';
