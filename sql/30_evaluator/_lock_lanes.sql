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
  'Wait until no pass works on these lanes of the tenant (null: on any) and keep passes away until the transaction ends. '
  'A change of a rule, a device or an alert''s state from outside a pass takes these locks first, so that it cannot cross '
  'with a pass. Other tenants are evaluated meanwhile.';
