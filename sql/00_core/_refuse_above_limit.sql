create function core._refuse_above_limit(p_tenant_id text, p_limit_name text, p_used bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_limit constant bigint := core._limit_of(p_tenant_id, p_limit_name);
begin
  if p_used > v_limit then
    raise exception using
      errcode = 'PULIM',
      message = format(
        'The tenant may have %s %s (limit %s). Remove some, or ask the operator of Pulse to raise the limit: '
        'pulse tenant limit %s %s VALUE', v_limit, p_limit_name, p_limit_name, p_tenant_id, p_limit_name),
      detail = jsonb_build_object('limit', p_limit_name, 'value', v_limit);
  end if;
end
$$;

comment on function core._refuse_above_limit(text, text, bigint) is
  'Raise PULIM if a tenant would have more rows than its limit allows. The error''s detail is JSON with limit and '
  'value.';
