create function evaluator._busy_tenants(p_tenant_ids text[], p_shards smallint[], p_until bigint) returns text[]
language sql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  select array(
    select distinct l.tenant_id
    from unnest(p_tenant_ids, p_shards) as l (tenant_id, shard)
    cross join lateral (
      select from evaluator.inbox i
      where i.tenant_id = l.tenant_id and i.shard = l.shard and i.arrival <= p_until
      -- The scan begins at the newest reading, so that it does not step over those that this transaction has taken.
      order by i.tenant_id desc, i.shard desc, i.arrival desc
      limit 1
    ) left_over
    order by l.tenant_id)
$$;

comment on function evaluator._busy_tenants(text[], smallint[], bigint) is
  'Return the tenants with readings left in these lanes that arrived up to p_until.';
