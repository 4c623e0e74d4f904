-- A tenant with few rules gets its share of readings without a look at them. For a tenant with so many rules that its share of
-- pairs may end first, the rules that concern each reading are counted.
create function evaluator._take(p_tenant_ids text[], p_shards smallint[], p_limit integer, p_pairs integer)
returns table (
  tenant_id text, device_id text, metric text, arrival bigint, "time" timestamptz, value double precision,
  received_at timestamptz, trace_id text, newest_before timestamptz, tags text[], counts boolean
)
language sql volatile
rows 1000
set search_path = pg_catalog, pg_temp
-- The inbox is empty one moment and long the next, so its statistics are always wrong: walk the key in order.
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_memoize = off  -- most devices of a pass occur once
as $$
  with lane as materialized (
    select l.tenant_id, l.shard, greatest(p_limit / count(*) over (partition by l.tenant_id), 1) as most, t.has_many_rules
    from unnest(p_tenant_ids, p_shards) as l (tenant_id, shard)
    join (
      select m.tenant_id, (
          select count(*)
          from (
            select from public.alert_rules r where r.tenant_id = m.tenant_id and r.enabled limit p_pairs / p_limit + 1
          ) few
        ) > p_pairs / p_limit as has_many_rules
      from (select distinct u.tenant_id from unnest(p_tenant_ids) as u (tenant_id)) m
    ) t using (tenant_id)
  ), fetched as materialized (
    select l.tenant_id, l.shard, n.place, n.device_id, n.metric,
      row_number() over (partition by l.tenant_id, l.shard order by n.arrival) as turn
    from lane l
    cross join lateral (
      select i.ctid as place, i.device_id, i.metric, i.arrival
      from evaluator.inbox i
      where i.tenant_id = l.tenant_id and i.shard = l.shard
      order by i.tenant_id, i.shard, i.arrival
      limit l.most
    ) n
    where l.has_many_rules
  ), wide as materialized (
    select m.tenant_id, m.metric, (
        select count(*) from (
          select from public.alert_rules r
          where r.tenant_id = m.tenant_id and r.metric = m.metric and r.enabled and r.device_id is null
          limit p_pairs
        ) few
      ) as pairs, exists (
        select from public.alert_rules r
        where r.tenant_id = m.tenant_id and r.metric = m.metric and r.enabled and r.device_id is not null
      ) as has_narrow
    from (select distinct f.tenant_id, f.metric from fetched f) m
  ), narrow as materialized (
    select s.tenant_id, s.device_id, s.metric, (
        select count(*) from (
          select from public.alert_rules r
          where r.tenant_id = s.tenant_id and r.metric = s.metric and r.enabled and r.device_id = s.device_id
          limit p_pairs
        ) few
      ) as pairs
    from (
      select distinct f.tenant_id, f.device_id, f.metric
      from fetched f
      join wide w on w.tenant_id = f.tenant_id and w.metric = f.metric and w.has_narrow
    ) s
  ), summed as (
    select f.place, sum(w.pairs + coalesce(n.pairs, 0)) over (
        partition by f.tenant_id order by f.turn, f.shard rows between unbounded preceding and 1 preceding) as pairs_before
    from fetched f
    join wide w on w.tenant_id = f.tenant_id and w.metric = f.metric
    left join narrow n on n.tenant_id = f.tenant_id and n.device_id = f.device_id and n.metric = f.metric
  ), taken as (
    delete from evaluator.inbox i
    where i.ctid = any (array(
      select next.place
      from lane l
      cross join lateral (
        select n.ctid as place
        from evaluator.inbox n
        where n.tenant_id = l.tenant_id and n.shard = l.shard
        order by n.tenant_id, n.shard, n.arrival
        limit l.most
      ) next
      where not l.has_many_rules
      union all
      select s.place from summed s where coalesce(s.pairs_before, 0) < p_pairs
    ))
    returning i.*
  )
  select t.tenant_id, t.device_id, t.metric, t.arrival, least(t.timestamp, t.received_at), t.value, t.received_at, t.trace_id,
    t.newest_before, d.tags, coalesce(t.reading_id >= d.first_reading_id, false)
  from taken t
  left join lateral (  -- limited, so that it stays a look-up by key, however large the fleet
    select d.tags, d.first_reading_id from public.devices d
    where d.tenant_id = t.tenant_id and d.device_id = t.device_id and d.enabled limit 1
  ) d on true
$$;

comment on function evaluator._take(text[], smallint[], integer, integer) is
  'Take the oldest readings of these lanes out of the inbox: of each tenant at most p_limit, and none after the one that '
  'completes p_pairs pairs of a reading and a rule. One counts unless its device was disabled or deleted since. The caller holds the lanes, so no other pass takes them; the statement '
  'that calls this still sees them in the inbox.';
