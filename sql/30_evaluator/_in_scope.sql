create function evaluator._in_scope(p_rule public.alert_rules, p_device public.devices) returns boolean
language sql immutable
return p_rule.tenant_id = p_device.tenant_id
  and (p_rule.device_id is null or p_rule.device_id = p_device.device_id)
  and (p_rule.tag is null or p_rule.tag = any (p_device.tags));

comment on function evaluator._in_scope(public.alert_rules, public.devices) is
  'Return true if the device is in the rule''s scope.';
