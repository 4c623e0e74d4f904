-- The state machine that evaluate.sql draws, run over the new readings of a pass at once. Readings are cut into islands of
-- equal breach; island 0 continues the state that was stored.
create function evaluator._advance(p_shards smallint[], p_limit integer, out readings integer, out transitions jsonb)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- The planner expects one candidate; when a fleet breaches at once there are thousands, and a loop would be quadratic.
-- What must stay a look-up by key says so with a limit.
set enable_nestloop = off
set jit = off
as $$
begin
  with batch as materialized (
    select t.tenant_id, t.device_id, t.metric, t.timestamp, t.value, t.received_at, t.trace_id
    from evaluator._take(p_shards, p_limit) t
  ), live as materialized (
    -- What came before its device was disabled or deleted opens nothing: nothing could close it again.
    select b.*, d.tags
    from batch b
    cross join lateral (  -- limited, so that it stays a look-up by key, however large the fleet
      select d.tags from public.devices d
      where d.tenant_id = b.tenant_id and d.device_id = b.device_id and d.enabled limit 1
    ) d
  ), breaching as (
    select tenant_id, rule_id, device_id, min(timestamp) as first_breach
    from (
      -- Two joins, each on all it can be on: a fleet with a rule for every device costs no more than one with one rule.
      select l.tenant_id, r.rule_id, l.device_id, l.timestamp from live l
      join public.alert_rules r on r.tenant_id = l.tenant_id and r.metric = l.metric and r.enabled
        and r.device_id = l.device_id and evaluator._breaches(r.operator, l.value, r.threshold)
      union all
      select l.tenant_id, r.rule_id, l.device_id, l.timestamp from live l
      join public.alert_rules r on r.tenant_id = l.tenant_id and r.metric = l.metric and r.enabled
        and r.device_id is null and (r.tag is null or r.tag = any (l.tags))
        and evaluator._breaches(r.operator, l.value, r.threshold)
    ) breach
    group by tenant_id, rule_id, device_id
  ), tracked as (
    select s.*
    from (select distinct b.tenant_id, b.device_id, b.metric from batch b) series
    cross join lateral (  -- fenced, so that it stays a look-up: most of those that fire have sent nothing new
      select * from public.rule_state s where s.tenant_id = series.tenant_id and s.device_id = series.device_id offset 0
    ) s
    cross join lateral (
      select from public.alert_rules r
      where r.tenant_id = s.tenant_id and r.rule_id = s.rule_id and r.metric = series.metric limit 1
    ) r
  ), pair as (
    select tenant_id, rule_id, device_id, first_breach, t.since, t.firing, t.last_timestamp
    from breaching full join tracked t using (tenant_id, rule_id, device_id)
  ), candidate as materialized (
    select p.tenant_id, p.rule_id, p.device_id, core.shard_of(p.tenant_id, p.device_id) as shard, r.metric, r.operator,
      r.threshold, make_interval(secs => r.for_seconds) as for_at_least, p.since, p.firing,
      coalesce(p.last_timestamp, evaluated.timestamp) as newest
    from pair p
    cross join lateral (
      select * from public.alert_rules r where r.tenant_id = p.tenant_id and r.rule_id = p.rule_id limit 1
    ) r
    left join lateral (
      -- Rare: only a breach of a pair without state asks what was evaluated before. This statement's snapshot still
      -- shows the batch in the inbox, so a reading that is not in it has been evaluated.
      select e.timestamp
      from public.telemetry e
      where p.since is null and e.tenant_id = p.tenant_id and e.device_id = p.device_id
        and e.metric = r.metric and e.timestamp >= p.first_breach and not exists (
          select from evaluator.inbox i
          where i.shard = core.shard_of(e.tenant_id, e.device_id) and i.reading_id = e.reading_id)
      order by e.timestamp desc limit 1
    ) evaluated on true
  ), sequence as (
    select c.*, b.timestamp, b.value, b.received_at, b.trace_id, false as is_quiet_mark,
      evaluator._breaches(c.operator, b.value, c.threshold) as breach
    from candidate c join batch b using (tenant_id, device_id, metric)
    where c.newest is null or b.timestamp > c.newest or (c.since is null and c.for_at_least = interval '0')
    union all
    -- An idle pair whose newest evaluated reading is known: there it was quiet.
    select c.*, c.newest, null, null, null, true, false
    from candidate c
    where c.since is null and c.newest is not null
  ), flipped as (
    select s.*,
      s.breach is distinct from lag(s.breach, 1, s.since is not null)
        over (partition by s.tenant_id, s.rule_id, s.device_id order by s.timestamp, s.is_quiet_mark) as flip
    from sequence s
  ), numbered as (
    select f.*,
      count(*) filter (where f.flip)
        over (partition by f.tenant_id, f.rule_id, f.device_id order by f.timestamp, f.is_quiet_mark) as island
    from flipped f
  ), dated as (
    select n.*,
      case when n.island = 0 then n.since else first_value(n.timestamp)
        over (partition by n.tenant_id, n.rule_id, n.device_id, n.island order by n.timestamp, n.is_quiet_mark)
      end as began
    from numbered n
  ), islands as (
    select d.tenant_id, d.rule_id, d.device_id, d.shard, d.island, d.breach, d.began, d.for_at_least, d.firing,
      d.island = 0 and d.firing as was_firing,
      max(d.timestamp) as last_timestamp,
      (array_agg(d.value order by d.timestamp desc))[1] as last_value,
      (array_agg(d.trace_id order by d.timestamp desc))[1] as last_trace_id,
      -- What starts the island for a close, what has lasted long enough for an open.
      (array_agg(
        jsonb_build_object('at', d.timestamp, 'value', d.value, 'received_at', d.received_at, 'trace_id', d.trace_id)
        order by d.timestamp, d.is_quiet_mark) filter (where not d.breach or d.timestamp >= d.began + d.for_at_least))[1] as edge
    from dated d
    group by d.tenant_id, d.rule_id, d.device_id, d.shard, d.island, d.breach, d.began, d.for_at_least, d.firing
  ), judged as (
    select i.*,
      i.breach and (i.was_firing or i.edge is not null) as fires,
      lag(i.breach and (i.was_firing or i.edge is not null), 1, i.firing) over pair as fired_before,
      lead(i.island) over pair is null as is_last
    from islands i
    window pair as (partition by i.tenant_id, i.rule_id, i.device_id order by i.island)
  ), kept as (
    insert into public.rule_state as s
      (tenant_id, rule_id, device_id, shard, since, firing, last_timestamp, last_value, due_at, trace_id)
    select j.tenant_id, j.rule_id, j.device_id, j.shard, j.began, j.fires, j.last_timestamp, j.last_value,
      case when not j.fires then j.began + j.for_at_least end, j.last_trace_id
    from judged j
    where j.is_last and j.breach
    on conflict (tenant_id, rule_id, device_id) do update
    set since = excluded.since, firing = excluded.firing, last_timestamp = excluded.last_timestamp,
      last_value = excluded.last_value, due_at = excluded.due_at, trace_id = excluded.trace_id
  ), forgotten as (
    delete from public.rule_state s
    where s.ctid = any (array(  -- nobody else moves them: the caller holds the shards
      select old.place
      from judged j
      cross join lateral (
        select o.ctid as place from public.rule_state o
        where o.tenant_id = j.tenant_id and o.rule_id = j.rule_id and o.device_id = j.device_id limit 1
      ) old
      where j.is_last and not j.breach))
  )
  select
    (select count(*) from batch),
    coalesce(
      (select jsonb_agg(j.edge || jsonb_build_object('tenant_id', j.tenant_id, 'rule_id', j.rule_id,
          'device_id', j.device_id, 'n', j.island, 'kind', case when j.breach then 'open' else 'close' end)
          order by j.edge ->> 'at', j.tenant_id, j.rule_id, j.device_id, j.island)
        from judged j
        where (j.fires and not j.was_firing) or (not j.breach and j.fired_before)),
      '[]')
  into readings, transitions;
end
$$;

comment on function evaluator._advance(smallint[], integer) is
  'Consume the next readings of the shards, at most p_limit each, move the state of every rule and device they concern, '
  'and return the alerts to open and close. The caller holds the row locks of the shards.';
