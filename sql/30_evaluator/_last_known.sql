create function evaluator._last_known(p_rule public.alert_rules, p_device_id text)
returns table (device_id text, value double precision, "time" timestamptz, lag interval, trace_id text)
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select s.device_id, s.value, least(s.timestamp, s.received_at), s.received_at - least(s.timestamp, s.received_at), s.trace_id
  from public.devices d
  join public.device_state s on s.tenant_id = d.tenant_id and s.device_id = d.device_id
  where d.tenant_id = p_rule.tenant_id and d.enabled and s.metric = p_rule.metric
    and d.device_id = coalesce(p_device_id, p_rule.device_id, d.device_id)
    and evaluator._in_scope(p_rule, d)
    and s.received_at > core.now() - interval '24 hours'
    -- The next pass judges the readings in the inbox, unless they are late.
    and not exists (
      select from evaluator.inbox i
      where i.shard = core.shard_of(s.tenant_id, s.device_id) and i.tenant_id = s.tenant_id and i.device_id = s.device_id
        and i.metric = s.metric and least(i.timestamp, i.received_at) < i.newest_before is not true)
$$;

comment on function evaluator._last_known(public.alert_rules, text) is
  'Return the last evaluated values of the metric that a rule watches, if they arrived within 24 hours: for one device, or '
  '(null) for all devices in its scope. lag is how far the device''s time was behind the server''s at arrival.';
