create function ops.create_policy(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_policy_id bigint;
begin
  insert into public.escalation_policies as p (tenant_id, name)
  values (v_tenant_id, p_body ->> 'name')
  returning p.policy_id into v_policy_id;
  perform ops._set_steps(v_tenant_id, v_policy_id, p_body -> 'steps');
  return (select to_jsonb(p) from api.escalation_policies p where p.policy_id = v_policy_id);
end
$$;

comment on function ops.create_policy(jsonb) is
  'Insert a policy {name, steps: [{after_minutes, channel_id}]} and return it as the API shows it.';
