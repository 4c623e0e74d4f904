create function core.shard_of(p_tenant_id text, p_device_id text) returns smallint
language sql immutable parallel safe
return (hashtextextended(p_tenant_id || '/' || p_device_id, 0) & 15)::smallint;

comment on function core.shard_of(text, text) is
  'Shard 0 to 15 of a device; the hash is the one hash partitions rest on, so it is stable across versions.';
