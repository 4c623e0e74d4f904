create function delivery.extend(
  p_tenant_ids text[],
  p_job_ids bigint[],
  p_lease_epochs integer[],
  p_lease_seconds double precision
) returns setof bigint
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
begin atomic
  with held as materialized (
    select j.place
    from (
      select *
      from unnest(p_tenant_ids, p_job_ids, p_lease_epochs) as l (tenant_id, job_id, lease_epoch)
      order by l.tenant_id, l.job_id  -- the order in which delivery.finish locks too
    ) l
    cross join lateral (
      select j.ctid as place
      from public.notification_jobs j
      where j.tenant_id = l.tenant_id and j.job_id = l.job_id and j.lease_epoch = l.lease_epoch
        and j.lease_until is not null
      for update
    ) j
  )
  update public.notification_jobs j
  set lease_until = core.now() + make_interval(secs => p_lease_seconds)
  from held h
  where j.ctid = h.place
  returning j.job_id;
end;

comment on function delivery.extend(text[], bigint[], integer[], double precision) is
  'Renews leases that are still the current ones and returns their job ids; a job that is missing was lost to another '
  'worker.';
