create function delivery._lock_channels(p_tenant_ids text[], p_job_ids bigint[]) returns void
language sql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
  select
  from public.notification_channels n
  where (n.tenant_id, n.channel_id) in (
    select j.tenant_id, j.channel_id
    from unnest(p_tenant_ids, p_job_ids) as l (tenant_id, job_id)
    cross join lateral (
      select j.tenant_id, j.channel_id
      from public.notification_jobs j
      where j.tenant_id = l.tenant_id and j.job_id = l.job_id
      limit 1
    ) j
  )
  order by n.tenant_id, n.channel_id
  for no key update
$$;

comment on function delivery._lock_channels(text[], bigint[]) is 'Lock the channels of these jobs in the order of their keys.';
