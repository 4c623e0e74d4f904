create function evaluator._within_pairs(p_tenant_ids text[], p_shards smallint[], p_shares integer[], p_pairs integer[])
returns tid[]
language sql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
-- A loop would be quadratic: the planner does not know how many readings there are.
set enable_nestloop = off
as $$
  with fetched as materialized (
    select l.tenant_id, l.shard, l.pairs, n.place, n.device_id, n.metric,
      row_number() over (partition by l.tenant_id, l.shard order by n.arrival) as turn
    from unnest(p_tenant_ids, p_shards, p_shares, p_pairs) as l (tenant_id, shard, share, pairs)
    cross join lateral (
      select i.ctid as place, i.device_id, i.metric, i.arrival
      from evaluator.inbox i
      where i.tenant_id = l.tenant_id and i.shard = l.shard
      order by i.tenant_id, i.shard, i.arrival
      limit l.share
    ) n
  ), wide as materialized (
    select m.tenant_id, m.metric, (
        select count(*) from (
          select from public.alert_rules r
          where r.tenant_id = m.tenant_id and r.metric = m.metric and r.enabled and r.device_id is null
          limit m.pairs
        ) few
      ) as pairs, exists (
        select from public.alert_rules r
        where r.tenant_id = m.tenant_id and r.metric = m.metric and r.enabled and r.device_id is not null
      ) as has_narrow
    from (select distinct f.tenant_id, f.metric, f.pairs from fetched f) m
  ), narrow as materialized (
    select s.tenant_id, s.device_id, s.metric, (
        select count(*) from (
          select from public.alert_rules r
          where r.tenant_id = s.tenant_id and r.metric = s.metric and r.enabled and r.device_id = s.device_id
          limit s.pairs
        ) few
      ) as pairs
    from (
      select distinct f.tenant_id, f.device_id, f.metric, f.pairs
      from fetched f
      join wide w on w.tenant_id = f.tenant_id and w.metric = f.metric and w.has_narrow
    ) s
  ), summed as (
    select f.place, f.pairs, sum(w.pairs + coalesce(n.pairs, 0)) over (
        partition by f.tenant_id order by f.turn, f.shard rows between unbounded preceding and 1 preceding) as pairs_before
    from fetched f
    join wide w on w.tenant_id = f.tenant_id and w.metric = f.metric
    left join narrow n on n.tenant_id = f.tenant_id and n.device_id = f.device_id and n.metric = f.metric
  )
  select array_agg(s.place) from summed s where coalesce(s.pairs_before, 0) < s.pairs
$$;

comment on function evaluator._within_pairs(text[], smallint[], integer[], integer[]) is
  'Return where the next readings of these lanes are in the inbox, as _take takes them, after counting the rules '
  'for each reading.';
