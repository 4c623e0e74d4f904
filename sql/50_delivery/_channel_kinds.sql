-- The check of the table is the database's one list of kinds.
create function delivery._channel_kinds() returns table (kind text)
language sql stable
set search_path = pg_catalog, pg_temp
begin atomic
  select found[1]
  from pg_constraint c
  cross join regexp_matches(pg_get_constraintdef(c.oid), '''([a-z0-9_]+)''', 'g') found
  where c.conrelid = 'public.notification_channels'::regclass and c.conname = 'notification_channels_kind_check';
end;

comment on function delivery._channel_kinds() is
  'Return the kinds of channels that the check of notification_channels.kind admits.';
