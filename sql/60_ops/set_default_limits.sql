create function ops.set_default_limits(p_limits jsonb) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_changed integer;
begin
  update public.tenant_limits l
  set value = n.value::bigint, updated_at = core.now()
  from jsonb_each_text(p_limits) as n (limit_name, value)
  where l.tenant_id = 'system' and l.limit_name = n.limit_name and l.value <> n.value::bigint;
  get diagnostics v_changed = row_count;
  return v_changed;
end
$$;

comment on function ops.set_default_limits(jsonb) is
  'Set the limits of tenants without limits of their own, {name: value}. Return the number of limits changed.';
