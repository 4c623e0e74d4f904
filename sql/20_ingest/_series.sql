create function ingest._series(p_tenant_id text) returns bigint
language sql stable
set search_path = pg_catalog, pg_temp
as $$
  select greatest(coalesce(sum(c.added), 0), 0)::bigint from ingest.series_counts c where c.tenant_id = p_tenant_id
$$;

comment on function ingest._series(text) is 'Return the number of committed series of a tenant.';
