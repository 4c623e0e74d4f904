create function evaluator._take(p_shards smallint[], p_limit integer) returns setof evaluator.inbox
language sql volatile
rows 1000
set search_path = pg_catalog, pg_temp
-- The inbox is empty one moment and long the next, so its statistics are always wrong: walk the key in order.
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
  delete from evaluator.inbox i
  where i.ctid = any (array(
    select next.place
    from unnest(p_shards) as mine (shard)
    cross join lateral (
      select n.ctid as place
      from evaluator.inbox n
      where n.shard = mine.shard
      order by n.shard, n.arrival
      limit p_limit
    ) next
  ))
  returning i.*
$$;

comment on function evaluator._take(smallint[], integer) is
  'Take the oldest readings of the shards out of the inbox, at most p_limit of each. The caller holds the row locks of the '
  'shards, so nobody else takes them; the statement that calls this still sees them in the inbox.';
