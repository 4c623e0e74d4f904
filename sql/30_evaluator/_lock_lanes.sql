create function evaluator._lock_lanes(p_tenant_id text, p_shards smallint[] default null) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform evaluator._add_lanes(array[p_tenant_id]);
  perform
  from evaluator.lanes l
  where l.tenant_id = p_tenant_id and (p_shards is null or l.shard = any (p_shards))
  order by l.shard
  for update;
end
$$;

comment on function evaluator._lock_lanes(text, smallint[]) is
  'Lock these lanes of the tenant (null: all), so that no pass evaluates them until the transaction ends. A transaction that '
  'changes a rule, a device or an alert''s state outside a pass takes these locks first, so that it cannot interleave with a '
  'pass. Other tenants are still evaluated.';
