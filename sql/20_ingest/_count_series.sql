create function ingest._count_series(p_tenant_id text, p_added bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  if core._count_usage(p_tenant_id, 'series', p_added) > core._limit_of(p_tenant_id, 'series') then
    -- Another request took the places meanwhile. The caller tries again and then sees the new count.
    raise exception using errcode = '40001', message = 'the last series within the limit were begun by another request';
  end if;
end
$$;

comment on function ingest._count_series(text, bigint) is
  'Count new series of a tenant; 40001 when another transaction left no room for them.';
