create function evaluator._fire_timers(p_tenant_ids text[], p_shards smallint[], p_limit integer) returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  with lane as materialized (
    select l.tenant_id, l.shard, greatest(p_limit / count(*) over (partition by l.tenant_id), 1) as share
    from unnest(p_tenant_ids, p_shards) as l (tenant_id, shard)
    where exists (
      select from public.rule_state s where s.tenant_id = l.tenant_id and s.shard = l.shard and s.due_at <= core.now())
  ), waiting as materialized (
    select distinct i.tenant_id, i.device_id, i.metric
    from lane l
    join evaluator.inbox i on i.tenant_id = l.tenant_id and i.shard = l.shard
  ), due as (
    select next.place
    from lane l
    cross join lateral (
      select s.ctid as place
      from public.rule_state s
      join public.alert_rules r on r.tenant_id = s.tenant_id and r.rule_id = s.rule_id
      where s.tenant_id = l.tenant_id and s.shard = l.shard and s.due_at <= core.now()
        -- What has arrived but is not evaluated may end the breach first.
        and (s.tenant_id, s.device_id, r.metric) not in (select w.tenant_id, w.device_id, w.metric from waiting w)
      order by s.due_at
      limit l.share
    ) next
  ), fired as (
    update public.rule_state s
    set firing = true, due_at = null
    from public.alert_rules r
    where s.ctid = any (array(select d.place from due d))  -- no other transaction moves them: the caller holds the lanes
      and r.tenant_id = s.tenant_id and r.rule_id = s.rule_id
    returning s.tenant_id, s.rule_id, s.device_id, s.since + make_interval(secs => r.for_seconds) as at, s.last_value as value,
      s.trace_id
  )
  -- After everything that the same pass did to the pair.
  select coalesce(jsonb_agg(to_jsonb(f) || '{"kind": "open", "n": 2147483647}' order by f.at), '[]') from fired f
$$;

comment on function evaluator._fire_timers(text[], smallint[], integer) is
  'Turn pending pairs whose for_seconds ran out on the server''s clock without a further reading into firing ones, at most '
  'p_limit of each tenant and one of each lane; return the alerts to open. The caller holds the lanes.';
