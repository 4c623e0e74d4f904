create function evaluator._fire_timers(p_shards smallint[]) returns jsonb
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  with fired as (
    update public.rule_state s
    set firing = true, due_at = null
    from public.alert_rules r
    where s.shard = any (p_shards) and s.due_at <= core.now()
      and r.tenant_id = s.tenant_id and r.rule_id = s.rule_id
      -- What has arrived but is not evaluated may end the breach first.
      and not exists (
        select from evaluator.inbox i
        where i.shard = s.shard and i.tenant_id = s.tenant_id and i.device_id = s.device_id and i.metric = r.metric)
    returning s.tenant_id, s.rule_id, s.device_id, s.since + make_interval(secs => r.for_seconds) as at, s.last_value as value,
      s.trace_id
  )
  -- After everything that the same pass did to the pair.
  select coalesce(jsonb_agg(to_jsonb(f) || '{"kind": "open", "n": 2147483647}' order by f.at), '[]') from fired f
$$;

comment on function evaluator._fire_timers(smallint[]) is
  'Turn pending pairs whose for_seconds ran out on the server''s clock without a further reading into firing ones; return '
  'the alerts to open. The caller holds the row locks of the shards.';
