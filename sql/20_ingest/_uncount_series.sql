create function ingest._uncount_series() returns trigger
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if tg_op = 'TRUNCATE' then
    delete from ingest.series_counts;
  else
    insert into ingest.series_counts (tenant_id, added)
    select t.tenant_id, -count(*)
    from old_rows r
    join public.tenants t on t.tenant_id = r.tenant_id
    group by t.tenant_id;
  end if;
  return null;
end
$$;

comment on function ingest._uncount_series() is 'Subtract the series that a statement removed from the tenant''s count.';
