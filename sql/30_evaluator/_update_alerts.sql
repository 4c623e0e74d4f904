create function evaluator._update_alerts(p_old public.alert_rules, p_new public.alert_rules) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1  -- every digit of a double
as $$
declare
  v_updated jsonb;
begin
  with updated as (
    update public.alerts a
    set severity = p_new.severity, rule_name = core.visible_text(p_new.name),
      message = case
        when (p_new.operator, p_new.threshold, p_new.for_seconds) = (p_old.operator, p_old.threshold, p_old.for_seconds)
          then a.message
        else format('%s of %s is %s (%s)', core.visible_text(p_new.metric), a.device_id,
          core.number_text(coalesce(s.last_value, a.value)),
          evaluator._condition(p_new.operator, p_new.threshold, p_new.for_seconds))
      end
    from public.alerts o
    left join public.rule_state s on s.tenant_id = o.tenant_id and s.rule_id = o.rule_id and s.device_id = o.device_id
    where o.tenant_id = p_new.tenant_id and o.rule_id = p_new.rule_id and o.status <> 'closed'
      and a.tenant_id = o.tenant_id and a.alert_id = o.alert_id
      and (p_new.severity, p_new.name, p_new.operator, p_new.threshold, p_new.for_seconds)
        <> (p_old.severity, p_old.name, p_old.operator, p_old.threshold, p_old.for_seconds)
    returning a.tenant_id, a.alert_id, a.trace_id, a.message, coalesce(s.last_value, a.value) as last_value
  )
  select jsonb_agg(jsonb_build_object('tenant_id', u.tenant_id, 'alert_id', u.alert_id, 'kind', 'updated',
    'at', core.now(), 'actor_type', core.current_actor_type(), 'actor', core.current_actor_id(), 'value', u.last_value,
    'message', u.message, 'trace_id', coalesce(core.current_trace_id(), u.trace_id)) order by u.alert_id)
  into v_updated
  from updated u;
  if v_updated is not null then
    perform evaluator._publish(v_updated);
  end if;
end
$$;

comment on function evaluator._update_alerts(public.alert_rules, public.alert_rules) is
  'Give a rule''s open alerts its new severity, name and condition, and publish that; acknowledgement and silence stay.';
