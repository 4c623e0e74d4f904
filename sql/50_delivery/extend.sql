create function delivery.extend(
  p_tenant_ids text[],
  p_job_ids bigint[],
  p_lease_epochs integer[],
  p_lease_seconds double precision
) returns setof bigint
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
begin
  perform delivery._lock_leased(p_tenant_ids, p_job_ids, p_lease_epochs);
  return query
  with held as materialized (
    select j.place
    from unnest(p_tenant_ids, p_job_ids, p_lease_epochs) as l (tenant_id, job_id, lease_epoch)
    cross join lateral (
      select j.ctid as place
      from public.notification_jobs j
      where j.tenant_id = l.tenant_id and j.job_id = l.job_id and j.lease_epoch = l.lease_epoch
        and j.lease_until is not null
      limit 1  -- keeps it a look-up by key
    ) j
  )
  update public.notification_jobs j
  set lease_until = core.now() + make_interval(secs => least(p_lease_seconds, 600))
  from held h
  where j.ctid = h.place  -- locked before this statement's snapshot, so it cannot have moved
  returning j.job_id;
end
$$;

comment on function delivery.extend(text[], bigint[], integer[], double precision) is
  'Renew leases that are still the current ones, for at most 600 seconds, and return their job ids. A missing job was lost to '
  'another worker.';
