create function ingest._count_series(p_tenant_id text, p_added bigint, p_skipped boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_used constant bigint := core._count_usage(p_tenant_id, 'series', p_added);
begin
  if p_skipped and v_used > core._limit_of(p_tenant_id, 'series') then
    -- Another request took the places meanwhile. The caller tries again and then sees the new count.
    raise exception using errcode = '40001', message = 'the last series within the limit were begun by another request';
  end if;
  perform core._refuse_above_limit(p_tenant_id, 'series', v_used);
end
$$;

comment on function ingest._count_series(text, bigint, boolean) is
  'Count new series of a tenant. PULIM above the limit; 40001 when those were skipped already that the limit had no room for.';
