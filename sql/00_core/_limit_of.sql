create function core._limit_of(p_tenant_id text, p_limit_name text) returns bigint
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return (
    select nullif(l.value, 0)
    from public.tenant_limits l
    where p_tenant_id <> 'system' and l.tenant_id in (p_tenant_id, 'system') and l.limit_name = p_limit_name
    order by l.tenant_id = 'system'
    limit 1);
end
$$;

comment on function core._limit_of(text, text) is
  'Return the limit of a tenant: its own, else the default; null if there is none. Pulse''s own tenant has no limits.';
