create function evaluator._open_alerts(p_tenant_id text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
declare
  v_limit constant bigint := core._limit_of(p_tenant_id, 'alerts_open');
begin
  if v_limit is null then
    return 0;
  end if;
  return (
    select count(*)
    from (select from public.alerts a where a.tenant_id = p_tenant_id and a.status <> 'closed' limit v_limit) a);
end
$$;

comment on function evaluator._open_alerts(text) is
  'Return the number of alerts of a tenant that are not closed, counted up to its limit; 0 for a tenant without a limit.';
