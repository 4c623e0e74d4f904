create function evaluator._fire_timers(p_tenant_ids text[], p_shards smallint[], p_shares integer[])
returns evaluator.transition[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_fired evaluator.transition[];
begin
  if not exists (
    select from unnest(p_tenant_ids, p_shards) as l (tenant_id, shard)
    cross join lateral (
      select from public.rule_state s
      where s.tenant_id = l.tenant_id and s.shard = l.shard and s.due_at <= core.now()
      limit 1
    ) due
  ) then
    return '{}';
  end if;
  with lane as materialized (
    select * from unnest(p_tenant_ids, p_shards, p_shares) as l (tenant_id, shard, share)
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
        -- A reading that has arrived but is not evaluated may end the breach first.
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
    -- The highest n: after everything that the same pass did to the pair.
    returning evaluator._transition('open', s.tenant_id, s.rule_id, s.device_id, 2147483647,
      s.since + make_interval(secs => r.for_seconds), s.last_value, null, s.trace_id) as transition
  )
  select array_agg(f.transition order by (f.transition).at) into v_fired from fired f;
  return coalesce(v_fired, '{}');
end
$$;

comment on function evaluator._fire_timers(text[], smallint[], integer[]) is
  'Set pending pairs to firing whose for_seconds ran out on the server''s clock without a further reading, at most the share '
  'of each lane, and return the alerts to open. The caller holds the lanes.';
