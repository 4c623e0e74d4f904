create function evaluator._take(p_tenant_ids text[], p_shards smallint[], p_shares integer[], p_pairs integer[])
returns table (
  tenant_id text, device_id text, metric text, arrival bigint, "time" timestamptz, value double precision,
  received_at timestamptz, trace_id text, newest_before timestamptz, tags text[], counts boolean
)
language plpgsql volatile
rows 1000
set search_path = pg_catalog, pg_temp
-- The inbox is empty one moment and long the next, so its statistics are always wrong: walk the key in order.
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
set enable_memoize = off  -- most devices of a pass occur once
as $$
#variable_conflict use_column
declare
  v_places tid[];
begin
  if evaluator._has_many_rules(p_tenant_ids, p_shares, p_pairs) then
    v_places := evaluator._within_pairs(p_tenant_ids, p_shards, p_shares, p_pairs);
  else
    v_places := array(
      select next.place
      from unnest(p_tenant_ids, p_shards, p_shares) as l (tenant_id, shard, share)
      cross join lateral (
        select i.ctid as place
        from evaluator.inbox i
        where i.tenant_id = l.tenant_id and i.shard = l.shard
        order by i.tenant_id, i.shard, i.arrival
        limit l.share
      ) next);
  end if;
  return query
  with taken as (
    delete from evaluator.inbox i where i.ctid = any (v_places) returning i.*
  )
  select t.tenant_id, t.device_id, t.metric, t.arrival, least(t.timestamp, t.received_at), t.value, t.received_at, t.trace_id,
    t.newest_before, d.tags, coalesce(t.reading_id >= d.first_reading_id, false)
  from taken t
  left join lateral (  -- limited, so that it stays a look-up by key, however large the fleet
    select d.tags, d.first_reading_id from public.devices d
    where d.tenant_id = t.tenant_id and d.device_id = t.device_id and d.enabled limit 1
  ) d on true;
end
$$;

comment on function evaluator._take(text[], smallint[], integer[], integer[]) is
  'Take the oldest readings of these lanes out of the inbox: at most the share of each lane, and of each tenant none after '
  'the one that completes its pairs of a reading and a rule. counts is false when the device was disabled or deleted since. '
  'The caller holds the lanes, so no other pass takes the readings; the statement that calls this still sees them in the inbox.';
