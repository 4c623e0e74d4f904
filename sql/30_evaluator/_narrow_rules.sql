-- No SET clauses, so that the planner inlines it into the caller's query.
create function evaluator._narrow_rules(p_tenant_id text, p_metric text, p_device_id text) returns setof public.alert_rules
language sql stable
as $$
  select * from public.alert_rules r
  where r.tenant_id = p_tenant_id and r.metric = p_metric and r.enabled and r.device_id = p_device_id
  offset 0  -- a fence: it stays a look-up by key, regardless of other tenants' rules
$$;

comment on function evaluator._narrow_rules(text, text, text) is 'Return the enabled rules on a metric that name this device.';
