create function ops.record_service_metrics(
  p_services text[],
  p_names text[],
  p_values double precision[],
  p_min_seconds double precision default 0
) returns integer
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '5s'
as $$
declare
  v_now timestamptz := core.now();
  v_stored integer;
begin
  -- Copies that collect at the same time take turns, so that the second one sees the samples of the first.
  perform ops._await_lock('service_metrics');
  insert into public.service_metrics (tenant_id, recorded_at, service, name, value)
  select 'system', v_now, sample.service, sample.name, sample.value
  from unnest(p_services, p_names, p_values) as sample (service, name, value)
  where not exists (
    select
    from public.service_metrics earlier
    where earlier.tenant_id = 'system'
      and earlier.service = sample.service
      and earlier.name = sample.name
      and earlier.recorded_at > v_now - make_interval(secs => p_min_seconds)
  )
  on conflict do nothing;
  get diagnostics v_stored = row_count;
  return v_stored;
end
$$;

comment on function ops.record_service_metrics(text[], text[], double precision[], double precision) is
  'Store counters as they were read, element by element. A counter with a sample younger than p_min_seconds is skipped, '
  'so that several copies store one series. Return the number of samples stored.';
