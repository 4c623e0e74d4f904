create view ops._escalation_decisions as
select
  escalation.tenant_id,
  escalation.alert_id,
  escalation.policy_id,
  escalation.due_at,
  decision.outcome,
  step.step_number,
  step.channel_id,
  step.channel_name,
  case decision.outcome
    when 'escalated' then next_step.step_number
    when 'postponed' then escalation.step_number
  end as next_step_number,
  case decision.outcome
    when 'escalated' then alert.recorded_at + delay.delayed_by + next_step.after_minutes * interval '1 minute'
    when 'postponed' then alert.silenced_until
  end as next_due_at,
  delay.delayed_by,
  alert.rule_name,
  escalation.trace_id
from ops.escalations escalation
join public.alerts alert
  on alert.tenant_id = escalation.tenant_id
  and alert.alert_id = escalation.alert_id
-- A policy that was shortened continues at the next step that it still has.
left join lateral (
  select s.step_number, s.after_minutes, s.channel_id, c.name as channel_name
  from public.escalation_steps s
  join public.notification_channels c
    on c.tenant_id = s.tenant_id
    and c.channel_id = s.channel_id
  where s.tenant_id = escalation.tenant_id
    and s.policy_id = escalation.policy_id
    and s.step_number >= escalation.step_number
  order by s.step_number
  limit 1
) step on true
left join lateral (
  select s.step_number, s.after_minutes
  from public.escalation_steps s
  where s.tenant_id = escalation.tenant_id
    and s.policy_id = escalation.policy_id
    and s.step_number > step.step_number
  order by s.step_number
  limit 1
) next_step on true
-- A step that a silence delayed delays the steps after it by as much, so that the gaps between them stay. Computed in
-- seconds, because a day of an interval may have 23 hours.
cross join lateral (
  select greatest(escalation.delayed_by, make_interval(
    secs => extract(epoch from escalation.due_at - alert.recorded_at)::double precision - 60 * step.after_minutes
  )) as delayed_by
) delay
cross join lateral (
  select case
    when alert.status <> 'open' or step.step_number is null then 'ended'
    when alert.silenced_until > core.now() then 'postponed'
    else 'escalated'
  end as outcome
) decision;

comment on view ops._escalation_decisions is
  'Decision about each waiting escalation if it is due now: escalated, postponed to the end of a silence, or ended. '
  'next_step_number and next_due_at are the step that follows (null: none), timed from the recorded opening of the '
  'alert plus the delay.';
