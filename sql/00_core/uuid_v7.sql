create function core.uuid_v7() returns uuid
language sql volatile parallel safe
-- A version 4 uuid whose first 48 bits become the milliseconds and whose version becomes 7.
return (
  select encode(
    overlay(
      set_byte(random.bytes, 6, (get_byte(random.bytes, 6) & 15) | 112)
      placing substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6
    ),
    'hex')::uuid
  from (select uuid_send(gen_random_uuid())) as random (bytes)
);

comment on function core.uuid_v7() is 'A UUID of version 7: milliseconds since 1970, then random bits, so that ids sort by time.';
