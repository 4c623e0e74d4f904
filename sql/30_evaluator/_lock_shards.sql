create function evaluator._lock_shards(p_shards smallint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from evaluator.shards s where s.shard = any (p_shards) order by s.shard for update;
end
$$;

comment on function evaluator._lock_shards(smallint[]) is
  'Wait until no pass works on these shards and keep passes away until the transaction ends. Whoever changes a rule, a '
  'device or the state of an alert from outside a pass takes these locks first, so that it cannot cross with a pass.';
