create function ingest._count_series(p_tenant_id text, p_added bigint, p_skipped boolean) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  -- Far from the limit no request waits. Near the limit the requests of a tenant take turns, so that they cannot pass it
  -- together. The distance is larger than the number of series that the requests in hand can begin.
  c_near constant bigint := 200000;
  v_limit constant bigint := core._limit_of(p_tenant_id, 'series');
begin
  if ingest._series(p_tenant_id) + p_added > v_limit - c_near then
    perform from public.tenants t where t.tenant_id = p_tenant_id for no key update;
    if ingest._series(p_tenant_id) + p_added > v_limit then
      if p_skipped then
        -- Another request took the last places. The caller retries and then sees the new count.
        raise exception using
          errcode = '40001', message = 'the last series within the limit were begun by another request';
      end if;
      perform core._refuse_above_limit(p_tenant_id, 'series', v_limit + 1);
    end if;
  end if;
  with merged as (
    delete from ingest.series_counts c
    where c.tenant_id = p_tenant_id and c.count_id = any (array(
      select free.count_id from ingest.series_counts free where free.tenant_id = p_tenant_id for update skip locked))
    returning c.added
  )
  insert into ingest.series_counts (tenant_id, added)
  select p_tenant_id, p_added + coalesce(sum(m.added), 0) from merged m;
end
$$;

comment on function ingest._count_series(text, bigint, boolean) is
  'Count new series of a tenant. Raise PULIM above the limit, or 40001 if the caller already skipped the series above it.';
