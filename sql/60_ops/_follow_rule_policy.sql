create function ops._follow_rule_policy(p_tenant_id text, p_rule_id bigint, p_policy_id bigint) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  select ops._follow_policy(p_tenant_id, p_policy_id, array(
    select a.alert_id
    from public.alerts a
    where a.tenant_id = p_tenant_id and a.rule_id = p_rule_id and a.status = 'open'))
$$;

comment on function ops._follow_rule_policy(text, bigint, bigint) is
  'Make the open alerts of a rule follow its new policy at once, or none if it is null.';
