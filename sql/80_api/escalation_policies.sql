create view api.escalation_policies as
select
  p.policy_id,
  p.name,
  coalesce(
    (
      select jsonb_agg(
        jsonb_build_object('after_minutes', s.after_minutes, 'channel_id', s.channel_id) order by s.step_number)
      from public.escalation_steps s
      where s.tenant_id = p.tenant_id and s.policy_id = p.policy_id
    ),
    '[]'
  ) as steps,
  p.created_at,
  p.updated_at
from public.escalation_policies p
where p.tenant_id = core.current_tenant();

comment on view api.escalation_policies is 'Escalation policies of the current tenant with their steps in order.';
