create function ops.record_refusals(p_tenant_ids text[], p_limit_names text[], p_values bigint[], p_refused bigint[]) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_refusal record;
begin
  for v_refusal in
    select r.* from unnest(p_tenant_ids, p_limit_names, p_values, p_refused) as r (tenant_id, limit_name, value, refused)
    join public.tenants t on t.tenant_id = r.tenant_id
    order by r.tenant_id, r.limit_name
  loop
    perform ops._refuse(v_refusal.tenant_id, v_refusal.limit_name, v_refusal.value, -1::smallint, v_refusal.refused);
  end loop;
end
$$;

comment on function ops.record_refusals(text[], text[], bigint[], bigint[]) is
  'Count the API''s refusals by limits of tenants: tenant, limit, value and number of refusals, element by element.';
