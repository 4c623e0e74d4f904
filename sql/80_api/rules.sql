create view api.rules as
select
  r.rule_id,
  r.name,
  r.metric,
  r.operator,
  r.threshold,
  r.for_seconds,
  r.severity,
  r.device_id,
  r.tag,
  r.policy_id,
  r.enabled,
  r.disabled_reason,
  r.created_at,
  r.updated_at
from public.alert_rules r
where r.tenant_id = core.current_tenant();

comment on view api.rules is 'Alert rules of the current tenant.';
