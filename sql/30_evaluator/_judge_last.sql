create function evaluator._judge_last(p_rule public.alert_rules, p_before public.alert_rules, p_device_id text) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  -- If more devices breach, the evaluator opens their alerts, so that the caller does not wait for a whole fleet.
  c_most_alerts constant integer := 1000;
  v_transitions evaluator.transition[];
begin
  with breaching as (
    select l.*, core.now() - l.lag as since, p_rule.for_seconds = 0 and count(*) over () <= c_most_alerts as fires
    from evaluator._last_known(p_rule, p_device_id) l
    where evaluator._breaches(p_rule.operator, l.value, p_rule.threshold)
      and not exists (
        select from public.alerts a
        where a.tenant_id = p_rule.tenant_id and a.fingerprint = format('rule:%s:%s', p_rule.rule_id, l.device_id)
          and a.status <> 'closed')
      -- If the rule held before and the pair has no alert, an operator closed it: it stays closed.
      and not exists (
        select from public.devices d
        where p_before.enabled and p_before.metric = p_rule.metric and d.tenant_id = p_rule.tenant_id
          and d.device_id = l.device_id and evaluator._in_scope(p_before, d)
          and evaluator._breaches(p_before.operator, l.value, p_before.threshold))
  ), pending as (
    insert into public.rule_state
      (tenant_id, rule_id, device_id, shard, since, firing, last_timestamp, last_value, due_at, trace_id)
    select p_rule.tenant_id, p_rule.rule_id, b.device_id, core.shard_of(p_rule.tenant_id, b.device_id), b.since,
      b.fires, b."time", b.value, case when not b.fires then core.now() + make_interval(secs => p_rule.for_seconds) end, b.trace_id
    from breaching b
    on conflict (tenant_id, rule_id, device_id) do nothing
    returning device_id, since, firing, last_value, trace_id
  )
  select array_agg(evaluator._transition('open', p_rule.tenant_id, p_rule.rule_id, p.device_id, 0, p.since, p.last_value, null,
    p.trace_id))
  into v_transitions
  from pending p
  where p.firing;
  if v_transitions is not null then
    perform evaluator._apply(v_transitions);
  end if;
  perform core.notify('pulse_evaluator');
end
$$;

comment on function evaluator._judge_last(public.alert_rules, public.alert_rules, text) is
  'Judge the last known values by a rule that is new, changed or newly concerns the device, as if they arrived now: open an '
  'alert, or start for_seconds. p_before is the rule before the change, null for a new rule. The caller holds the lanes.';
