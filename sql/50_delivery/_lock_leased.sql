create function delivery._lock_leased(p_tenant_ids text[], p_job_ids bigint[], p_lease_epochs integer[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform
  from (
    select *
    from unnest(p_tenant_ids, p_job_ids, p_lease_epochs) as l (tenant_id, job_id, lease_epoch)
    order by l.tenant_id, l.job_id  -- every function that locks several jobs uses this order
  ) l
  -- Each job is one look-up by key. The plan of a join would depend on statistics, which know no leased rows.
  cross join lateral (
    select
    from public.notification_jobs j
    where j.tenant_id = l.tenant_id and j.job_id = l.job_id and j.lease_epoch = l.lease_epoch
      and j.lease_until is not null
    for update
  ) locked;
end
$$;

comment on function delivery._lock_leased(text[], bigint[], integer[]) is
  'Lock those of the jobs whose current lease is the given one, and wait for them if necessary.';
