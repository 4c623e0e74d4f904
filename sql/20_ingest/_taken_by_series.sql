create function ingest._taken_by_series(p_tenant_id text, p_device_ids text[], p_metrics text[]) returns boolean[]
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  with reading as (
    select r.device_id, r.metric, r.position, min(r.position) over (partition by r.device_id, r.metric) as first
    from unnest(p_device_ids, p_metrics) with ordinality as r (device_id, metric, position)
  ), beginning as (
    select r.first, row_number() over (order by r.first) as place
    from reading r
    join public.devices d on d.tenant_id = p_tenant_id and d.device_id = r.device_id and d.enabled
    where r.position = r.first
      and not exists (
        select from public.device_state s
        where s.tenant_id = p_tenant_id and s.device_id = r.device_id and s.metric = r.metric)
  )
  select array_agg(b.place is null or b.place <= room.places order by r.position)
  from reading r
  cross join (
    -- Infinite without a limit.
    select coalesce(core._limit_of(p_tenant_id, 'series') - ingest._series(p_tenant_id), 9223372036854775807) as places
  ) room
  left join beginning b on b.first = r.first
$$;

comment on function ingest._taken_by_series(text, text[], text[]) is
  'Return for each position whether the reading is taken, so that the tenant stays within its limit of series.';
