-- The state machine that evaluate.sql describes. Readings that are not late are cut into islands of equal breach; island 0
-- continues the stored state. Every window is in the order of arrival, so the result does not depend on where a pass ends.
create function evaluator._advance(p_tenant_ids text[], p_shards smallint[], p_shares integer[], p_pairs integer[],
  out readings integer, out pairs bigint, out transitions evaluator.transition[], out late jsonb)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- The planner expects one candidate. When a fleet breaches at once there are thousands: a loop would be quadratic, a merge
-- sorts by texts. What must stay a look-up by key says so with a limit; no table is read from end to end.
set enable_nestloop = off
set enable_mergejoin = off
set enable_seqscan = off
set jit = off
as $$
begin
  with batch as materialized (  -- the readings that this pass consumes
    select * from evaluator._take(p_tenant_ids, p_shards, p_shares, p_pairs)
  ), live as not materialized (  -- those of enabled devices; others open nothing, for nothing could close it again
    select * from batch b where b.counts
  ), work as materialized (  -- tenants and metrics of the batch, and whether a rule on them names a device
    select b.tenant_id, b.metric, count(*) as readings, exists (
        select from public.alert_rules r
        where r.tenant_id = b.tenant_id and r.metric = b.metric and r.enabled and r.device_id is not null) as has_narrow
    from batch b group by b.tenant_id, b.metric
  ), wide as materialized (  -- the rules on these metrics that name no device
    select r.threshold, r.operator, w.tenant_id, w.metric, r.rule_id, r.tag, w.readings
    from work w cross join lateral evaluator._wide_rules(w.tenant_id, w.metric) r
  ), narrow as materialized (  -- the series of the batch with the rules that name their device
    select s.*, r.rule_id, r.operator, r.threshold
    from (
      select l.tenant_id, l.device_id, l.metric, count(*) as readings from live l
      join work w on w.tenant_id = l.tenant_id and w.metric = l.metric and w.has_narrow
      group by l.tenant_id, l.device_id, l.metric
    ) s cross join lateral evaluator._narrow_rules(s.tenant_id, s.metric, s.device_id) r
  ), breaching as (  -- pairs of a rule and a device with a breach in the batch
    select distinct tenant_id, rule_id, device_id from (
      -- Two joins, each on all it can be on: a fleet with a rule for every device costs no more than one with one rule.
      select l.tenant_id, n.rule_id, l.device_id from live l
      join narrow n on n.tenant_id = l.tenant_id and n.metric = l.metric and n.device_id = l.device_id
        and evaluator._breaches(n.operator, l.value, n.threshold)
      union all
      select l.tenant_id, w.rule_id, l.device_id from live l
      join wide w on w.tenant_id = l.tenant_id and w.metric = l.metric and (w.tag is null or w.tag = any (l.tags))
        and evaluator._breaches(w.operator, l.value, w.threshold)
    ) breach
  ), tracked as (  -- stored states, pending or firing, that a series of the batch concerns
    select s.*
    from (select distinct l.tenant_id, l.device_id, l.metric from live l) series
    cross join lateral (select * from public.rule_state s  -- fenced, so that it stays a look-up
      where s.tenant_id = series.tenant_id and s.device_id = series.device_id offset 0) s
    cross join lateral (select from public.alert_rules r
      where r.tenant_id = s.tenant_id and r.rule_id = s.rule_id and r.metric = series.metric limit 1) r
  ), candidate as materialized (  -- pairs to judge: breaching or tracked, with their rule and stored state
    select p.tenant_id, p.rule_id, p.device_id, p.since, p.firing, p.due_at, p.last_value, p.trace_id as state_trace_id,
      r.metric, r.operator, r.threshold, make_interval(secs => r.for_seconds) as for_at_least
    from (breaching full join tracked using (tenant_id, rule_id, device_id)) p
    cross join lateral (select * from public.alert_rules r where r.tenant_id = p.tenant_id and r.rule_id = p.rule_id limit 1) r
  ), sequence as (  -- the readings of each pair, judged; late ones are older than one that counted before
    select c.*, l.arrival, l.time, l.value, l.received_at, l.trace_id,
      evaluator._breaches(c.operator, l.value, c.threshold) as breach,
      l.newest_before as newest, l.time < l.newest_before is true as is_late
    from candidate c join live l using (tenant_id, device_id, metric)
  ), placed as (  -- each reading with the last reading of its pair before it that is not late
    select s.*,
      -- The parity keeps the breach of the last reading before that is not late.
      max(2 * s.arrival + s.breach::integer) filter (where not s.is_late)
        over (pair rows between unbounded preceding and 1 preceding) as previous
    from sequence s
    window pair as (partition by s.tenant_id, s.rule_id, s.device_id order by s.arrival)
  ), flipped as (  -- flip: the breach began or ended with this reading; fired: the pair was firing before the batch
    select p.*,
      not p.is_late and p.breach is distinct from coalesce(p.previous % 2 = 1, p.since is not null) as flip,
      -- The timer of a pending pair ran out before the first of these readings arrived.
      coalesce(p.firing, false)
        or bool_or(not p.is_late and p.previous is null and p.due_at < p.received_at is true) over pair as fired
    from placed p
    window pair as (partition by p.tenant_id, p.rule_id, p.device_id)
  ), numbered as (  -- each reading with its island: the number of flips up to it
    select f.*,
      count(*) filter (where f.flip) over pair as island,
      max(f.time) filter (where f.flip and not f.breach) over pair as ended
    from flipped f
    window pair as (partition by f.tenant_id, f.rule_id, f.device_id order by f.arrival)
  ), dated as (  -- each reading that is not late with the beginning of its island and the end of its timer
    select n.*,
      case when n.island = 0 then n.since else first_value(n.time) over island end as began,
      case when n.island = 0 then n.due_at else first_value(n.received_at) over island + n.for_at_least end as due,
      lead(n.received_at) over (partition by n.tenant_id, n.rule_id, n.device_id order by n.arrival) as next_received_at
    from numbered n
    where not n.is_late
    window island as (partition by n.tenant_id, n.rule_id, n.device_id, n.island order by n.arrival)
  ), islands as (  -- one row an island: its last reading, and the transition at its edge, if any
    select d.tenant_id, d.rule_id, d.device_id, d.island, d.breach, d.began, d.due, d.fired,
      d.island = 0 and d.fired as was_firing,
      max(d.time) as last_timestamp, (array_agg(d.value order by d.arrival desc))[1] as last_value,
      (array_agg(d.trace_id order by d.arrival desc))[1] as last_trace_id,
      -- A close is at the first reading of its island. An open is at the reading that lasted long enough, or when the timer
      -- ran out before the next reading arrived.
      (array_agg(
        evaluator._transition(case when d.breach then 'open' else 'close' end, d.tenant_id, d.rule_id, d.device_id,
          d.island::integer, greatest(d.time, case when d.breach then d.began + d.for_at_least end), d.value,
          case when not d.breach or d.time >= d.began + d.for_at_least then d.received_at end, d.trace_id)
        order by d.arrival)
        filter (where not d.breach or d.time >= d.began + d.for_at_least or d.due < d.next_received_at))[1] as edge
    from dated d
    group by d.tenant_id, d.rule_id, d.device_id, d.island, d.breach, d.began, d.due, d.fired
  ), judged as (  -- each island with whether the pair fires in it and fired before it
    select i.*,
      i.breach and (i.was_firing or (i.edge).kind is not null) as fires,
      lag(i.breach and (i.was_firing or (i.edge).kind is not null), 1, i.fired) over pair as fired_before,
      lead(i.island) over pair is null as is_last
    from islands i
    window pair as (partition by i.tenant_id, i.rule_id, i.device_id order by i.island)
  ), kept as (  -- states of the pairs that end in a breach, stored
    insert into public.rule_state as s
      (tenant_id, rule_id, device_id, shard, since, firing, last_timestamp, last_value, due_at, trace_id)
    select j.tenant_id, j.rule_id, j.device_id, core.shard_of(j.tenant_id, j.device_id), j.began, j.fires, j.last_timestamp,
      j.last_value, case when not j.fires then j.due end, j.last_trace_id
    from judged j where j.is_last and j.breach
    on conflict (tenant_id, rule_id, device_id) do update
    set since = excluded.since, firing = excluded.firing, last_timestamp = excluded.last_timestamp,
      last_value = excluded.last_value, due_at = excluded.due_at, trace_id = excluded.trace_id
  ), forgotten as (  -- states of the pairs that end quiet, removed
    delete from public.rule_state s
    where s.ctid = any (array(select (select o.ctid from public.rule_state o  -- the caller holds the lanes: they stay put
        where o.tenant_id = j.tenant_id and o.rule_id = j.rule_id and o.device_id = j.device_id)
      from judged j where j.is_last and not j.breach))
  ), transition as (  -- alerts to open and close: at the edges of islands, or by timers that ran out before the batch
    select j.edge
    from judged j
    where (j.fires and not j.was_firing) or (not j.breach and j.fired_before)
    union all
    select evaluator._transition('open', f.tenant_id, f.rule_id, f.device_id, -1, f.since + f.for_at_least, f.last_value, null,
      f.state_trace_id)
    from flipped f where not f.is_late and f.previous is null and f.fired and not f.firing
  )
  select (select count(*) from batch),
    coalesce((select sum(w.readings) from wide w), 0) + coalesce((select sum(n.readings) from narrow n), 0), (
      select array_agg(t.edge order by (t.edge).at, (t.edge).tenant_id, (t.edge).rule_id, (t.edge).device_id, (t.edge).n)
      from transition t), (
      select jsonb_agg(to_jsonb(n) order by n.tenant_id, n.rule_id, n.device_id, n.arrival)
      from numbered n
      -- Islands take turns, so the parity says whether the pair was idle when the reading arrived.
      where n.is_late and n.breach and n.for_at_least = interval '0' and (n.since is null) = (n.island % 2 = 0))
  into readings, pairs, transitions, late;
end
$$;

comment on function evaluator._advance(text[], smallint[], integer[], integer[]) is
  'Consume the next readings of the lanes as _take does, move the state of every rule and device they concern, and return the '
  'readings and pairs evaluated, the alerts to open and close, and late breaches of idle pairs. The caller holds the lanes.';
