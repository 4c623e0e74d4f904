create function evaluator._claim(
  p_tenant_ids text[], p_limit integer, p_pairs integer,
  out tenant_ids text[], out shards smallint[], out shares integer[], out pairs integer[]
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  with mine as materialized (
    select t.tenant_id, lane.shard
    from unnest(p_tenant_ids) as t (tenant_id)
    cross join lateral (
      select l.shard
      from evaluator.lanes l
      cross join lateral (
        select least(
          (
            select i.received_at from evaluator.inbox i
            where i.tenant_id = l.tenant_id and i.shard = l.shard
            order by i.tenant_id, i.shard, i.arrival
            limit 1
          ),
          (
            select s.due_at from public.rule_state s
            where s.tenant_id = l.tenant_id and s.shard = l.shard and s.due_at <= core.now()
            order by s.tenant_id, s.shard, s.due_at
            limit 1
          )) as since
        offset 0  -- a fence, so that it is computed once
      ) waiting
      where l.tenant_id = t.tenant_id and waiting.since is not null
      order by waiting.since, l.shard
      -- The other half of a tenant's lanes is left for a second evaluator.
      limit 8
      for update of l skip locked
    ) lane
  ), tenant as materialized (
    select m.tenant_id, count(*) as lanes, coalesce((
        select w.value from public.tenant_limits w
        where w.tenant_id = m.tenant_id and w.limit_name = 'evaluation_weight'), 1) as weight
    from mine m
    group by m.tenant_id
  )
  select array_agg(m.tenant_id), array_agg(m.shard), array_agg(greatest(t.readings / t.lanes, 1)::integer),
    array_agg(t.pairs::integer)
  into tenant_ids, shards, shares, pairs
  from mine m
  join (
    select t.tenant_id, t.lanes,
      greatest(p_limit * t.weight / (sum(t.weight) over ())::bigint, 1) as readings,
      greatest(p_pairs * t.weight / (sum(t.weight) over ())::bigint, 1) as pairs
    from tenant t
  ) t using (tenant_id);
end
$$;

comment on function evaluator._claim(text[], integer, integer) is
  'Lock the lanes of these tenants that have waited longest and that no other pass holds, at most eight of each tenant. '
  'Return each lane with its share of p_limit readings and the share of its tenant of p_pairs pairs. Tenants share by '
  'their evaluation_weight; the lanes of a tenant share equally.';
