create function evaluator._claim(p_tenant_ids text[], out tenant_ids text[], out shards smallint[])
language sql volatile
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  select array_agg(t.tenant_id), array_agg(mine.shard)
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
      offset 0  -- a fence: it is asked once
    ) waiting
    where l.tenant_id = t.tenant_id and waiting.since is not null
    order by waiting.since, l.shard
    -- At most half of a tenant's lanes, so that a second evaluator finds work too.
    limit 8
    for update of l skip locked
  ) mine
$$;

comment on function evaluator._claim(text[]) is
  'Lock the lanes of these tenants that have waited longest and that no other pass holds, at most eight of each tenant.';
