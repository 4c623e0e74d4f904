create function evaluator._open_alerts(p_tenant_id text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
as $$
begin
  return (
    select count(*)
    from (
      select from public.alerts a
      where a.tenant_id = p_tenant_id and a.status <> 'closed'
      limit core._limit_of(p_tenant_id, 'alerts_open')
    ) a);
end
$$;

comment on function evaluator._open_alerts(text) is
  'Return the number of alerts of a tenant that are not closed, counted up to its limit.';
