-- The state machine of one rule and device:
--
--   idle ── breach ─▶ pending ── breach has lasted for_seconds ─▶ firing (open)
--    ▲                  │                                           │
--    └── no breach ─────┴────────────── no breach (close) ──────────┘
--
-- State is sparse: only pending and firing pairs have a row, so a quiet reading writes nothing.
-- Readings of one device and metric count one after the other, in the order of arrival, at their evaluation time
-- least(timestamp, arrival). The timer of a pending pair runs for for_seconds from the arrival of its first reading; when
-- it ends between two arrivals, the alert opens between them. Where a request or a pass ends changes nothing.
-- A reading older than one that counted before is late. It moves no state; a late breach of an idle pair without
-- for_seconds becomes an alert that ends at the newest reading, unless an alert of the pair ended since.
create function evaluator.evaluate(p_limit integer) returns table (readings integer, transitions jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A pass takes at most half of the shards, so that a second evaluator finds work too.
  c_most_shards constant integer := 8;
  v_shards smallint[];
  v_late jsonb;
begin
  select array_agg(mine.shard) into v_shards
  from (
    select s.shard
    from evaluator.shards s
    cross join lateral (
      select min(i.arrival) as oldest from evaluator.inbox i where i.shard = s.shard
    ) waiting
    where waiting.oldest is not null
      or exists (select from public.rule_state r where r.shard = s.shard and r.due_at <= core.now())
    order by waiting.oldest
    limit c_most_shards
    for update of s skip locked
  ) mine;
  if v_shards is null then
    return query select 0, '[]'::jsonb;
    return;
  end if;
  -- Each statement from here on has a snapshot taken after the locks: nothing another pass did is missed.
  select a.readings, a.transitions, a.late into readings, transitions, v_late
  from evaluator._advance(v_shards, greatest(p_limit / cardinality(v_shards), 1)) a;
  transitions := transitions || evaluator._late_alerts(v_late) || evaluator._fire_timers(v_shards);
  if jsonb_array_length(transitions) > 0 then
    perform evaluator._apply(transitions);
  end if;
  return next;
end
$$;

comment on function evaluator.evaluate(integer) is
  'One pass: evaluate at most p_limit new readings of the shards nobody else holds, in order for each device, open and '
  'close alerts in the same transaction, and return the readings consumed and the transitions made.';
