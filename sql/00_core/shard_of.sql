create function core.shard_of(p_tenant_id text, p_device_id text) returns smallint
language sql immutable parallel safe
return (hashtextextended(p_tenant_id || '/' || p_device_id, 0) & 15)::smallint;

comment on function core.shard_of(text, text) is
  'Return the shard of a device, 0 to 15. Hash partitioning uses the same hash, so it is stable across versions of '
  'Postgres.';
