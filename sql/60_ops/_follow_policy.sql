-- Starts at the step after the last one taken under the same policy, which keeps its gap to the next step. A policy that
-- is new to the alert counts from now, so that overdue steps do not come all at once.
create function ops._follow_policy(p_tenant_id text, p_policy_id bigint, p_alert_ids bigint[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  with alert as materialized (
    select a.tenant_id, a.alert_id, a.recorded_at, a.silenced_until, a.trace_id
    from public.alerts a
    where a.tenant_id = p_tenant_id and a.alert_id = any (p_alert_ids) and a.status = 'open'
    order by a.alert_id
    for no key update
  ), reached as (
    select a.*, w.delayed_by,
      coalesce(w.step_number, taken.step_number + 1, 1) as step_number, taken.step_number as last_step, taken.at as last_at
    from alert a
    left join ops.escalations w on w.tenant_id = a.tenant_id and w.alert_id = a.alert_id and w.policy_id = p_policy_id
    left join lateral (
      select e.step_number, e.occurred_at as at
      from public.alert_events e
      where e.tenant_id = a.tenant_id and e.alert_id = a.alert_id and e.kind = 'escalated' and e.policy_id = p_policy_id
      order by e.event_id desc
      limit 1
    ) taken on true
  ), planned as (
    select r.*, s.step_number as next_step, s.after_minutes, coalesce(
        r.delayed_by,
        make_interval(
          secs => extract(epoch from r.last_at - r.recorded_at)::double precision - 60 * coalesce(l.after_minutes, 0)),
        make_interval(secs => extract(epoch from core.now() - r.recorded_at)::double precision)) as delay
    from reached r
    left join public.escalation_steps l on l.tenant_id = r.tenant_id and l.policy_id = p_policy_id
      and l.step_number = r.last_step
    left join lateral (
      select s.step_number, s.after_minutes
      from public.escalation_steps s
      where s.tenant_id = r.tenant_id and s.policy_id = p_policy_id and s.step_number >= r.step_number
      order by s.step_number
      limit 1
    ) s on true
  ), ended as (
    delete from ops.escalations w
    using alert a
    where w.tenant_id = a.tenant_id and w.alert_id = a.alert_id
      and not exists (
        select from planned p where p.tenant_id = a.tenant_id and p.alert_id = a.alert_id and p.next_step is not null)
  )
  insert into ops.escalations as w (tenant_id, alert_id, policy_id, step_number, due_at, delayed_by, trace_id)
  select p.tenant_id, p.alert_id, p_policy_id, p.next_step,
    greatest(p.recorded_at + p.delay + p.after_minutes * interval '1 minute', core.now(), p.silenced_until),
    p.delay, p.trace_id
  from planned p
  where p.next_step is not null
  on conflict (tenant_id, alert_id) do update set
    policy_id = excluded.policy_id, step_number = excluded.step_number, due_at = excluded.due_at,
    delayed_by = excluded.delayed_by;
  perform core.notify('pulse_ops');
end
$$;

comment on function ops._follow_policy(text, bigint, bigint[]) is
  'Make the open ones of these alerts follow the policy from now on: schedule its next step, or none if the policy is '
  'null or has no further step.';
