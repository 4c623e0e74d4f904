create function evaluator._follow_rule(p_old public.alert_rules, p_new public.alert_rules) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_compares_anew boolean := p_new.operator <> p_old.operator or p_new.threshold <> p_old.threshold;
  v_is_other boolean := (p_new.device_id, p_new.tag, p_new.enabled, p_new.metric)
    is distinct from (p_old.device_id, p_old.tag, p_old.enabled, p_old.metric);
  -- A value that breached the old condition breaches the new one.
  v_loosens boolean := case
    when p_old.operator in ('>', '>=') and p_new.operator in ('>', '>=')
      then p_new.threshold < p_old.threshold or (p_new.threshold = p_old.threshold and p_new.operator = '>=')
    when p_old.operator in ('<', '<=') and p_new.operator in ('<', '<=')
      then p_new.threshold > p_old.threshold or (p_new.threshold = p_old.threshold and p_new.operator = '<=')
    else false
  end;
  v_restarts boolean := v_compares_anew and not v_loosens;
begin
  if not p_new.enabled or p_new.metric <> p_old.metric then
    perform evaluator._forget_rule(p_new.tenant_id, p_new.rule_id,
      case when p_new.enabled then 'rule changed' else 'rule disabled' end);
  elsif v_compares_anew or v_is_other then
    perform evaluator.close_alerts(p_new.tenant_id, array(
        select a.alert_id
        from public.alerts a
        where a.tenant_id = p_new.tenant_id and a.rule_id = p_new.rule_id and a.status <> 'closed'
          and not evaluator._stays_true(p_new, a.device_id)),
      'rule changed', core.current_actor_id(), core.current_trace_id());
    delete from public.rule_state s
    where s.tenant_id = p_new.tenant_id and s.rule_id = p_new.rule_id and not s.firing
      and not evaluator._stays_true(p_new, s.device_id);
  end if;
  -- Under a stricter comparison it is unknown whether a pending breach held all along, so it starts now.
  update public.rule_state s
  set due_at = case when v_restarts then core.now() + make_interval(secs => p_new.for_seconds)
      else s.due_at + make_interval(secs => p_new.for_seconds - p_old.for_seconds) end,
    since = case when v_restarts
      then core.now() - coalesce(d.received_at - least(d.timestamp, d.received_at), interval '0') else s.since end
  from public.rule_state pending
  left join public.device_state d on d.tenant_id = pending.tenant_id and d.device_id = pending.device_id
    and d.metric = p_new.metric
  where pending.tenant_id = p_new.tenant_id and pending.rule_id = p_new.rule_id and not pending.firing
    and s.tenant_id = pending.tenant_id and s.rule_id = pending.rule_id and s.device_id = pending.device_id;
  perform evaluator._update_alerts(p_old, p_new);
  if p_new.enabled and (v_compares_anew or v_is_other) then
    perform evaluator._judge_last(p_new, p_old, null);
  end if;
  perform core.notify('pulse_evaluator');
end
$$;

comment on function evaluator._follow_rule(public.alert_rules, public.alert_rules) is
  'Adapt a changed rule''s alerts and state: keep the alerts whose condition still holds for the last evaluated reading, '
  'close the others, and open alerts for devices that breach now. The caller holds the lanes.';
