-- The state machine of one rule and device:
--
--   idle ── breach ─▶ pending ── breach has lasted for_seconds ─▶ firing (open)
--    ▲                  │                                           │
--    └── no breach ─────┴────────────── no breach (close) ──────────┘
--
-- State is sparse: only pending and firing pairs have a row, so a quiet reading writes nothing.
-- A late reading (older than one already evaluated) never rewinds the state. It is not lost either: for a rule without
-- for_seconds a late breach opens an alert that the newer, quiet reading closes at once.
create function evaluator.evaluate(p_limit integer) returns table (readings integer, transitions jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A pass takes at most half of the shards, so that a second evaluator finds work too.
  c_most_shards constant integer := 8;
  v_shards smallint[];
begin
  select array_agg(mine.shard) into v_shards
  from (
    select s.shard
    from evaluator.shards s
    cross join lateral (
      select min(i.reading_id) as oldest from evaluator.inbox i where i.shard = s.shard
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
  select a.readings, a.transitions into readings, transitions
  from evaluator._advance(v_shards, greatest(p_limit / cardinality(v_shards), 1)) a;
  transitions := transitions || evaluator._fire_timers(v_shards);
  if jsonb_array_length(transitions) > 0 then
    perform evaluator._apply(transitions);
  end if;
  return next;
end
$$;

comment on function evaluator.evaluate(integer) is
  'One pass: evaluate at most p_limit new readings of the shards nobody else holds, in order for each device, open and '
  'close alerts in the same transaction, and return the readings consumed and the transitions made.';
