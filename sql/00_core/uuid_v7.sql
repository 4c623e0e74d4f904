create function core.uuid_v7() returns uuid
language sql volatile parallel safe
-- 48 bits of milliseconds, the version and the rest of a version 4 UUID, in one expression that can be inlined.
return (
  lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0')
  || '7' || substr(gen_random_uuid()::text, 16)
)::uuid;

comment on function core.uuid_v7() is
  'Return a new UUID of version 7: milliseconds since 1970, then random bits, so that ids sort by time.';
