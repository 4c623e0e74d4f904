-- The order by all columns of the lane index, without sorting, leaves the planner no other plan even if statistics are stale.
create function delivery._has_due_jobs(p_now timestamptz, p_tenant_ids text[], p_channel_ids bigint[])
returns boolean
language sql
stable
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_incremental_sort = off
set enable_sort = off
as $$
  select exists (
    select
    from (
      select distinct l.tenant_id, l.channel_id
      from unnest(p_tenant_ids, p_channel_ids) as l (tenant_id, channel_id)
    ) l
    cross join lateral (
      select
      from public.notification_jobs j
      where j.state = 'pending'
        and (j.tenant_id, j.channel_id) >= (l.tenant_id, l.channel_id)
        and (j.tenant_id, j.channel_id, j.run_at) <= (l.tenant_id, l.channel_id, p_now)
      order by j.tenant_id, j.channel_id, j.run_at
      limit 1
    ) due
  )
$$;

comment on function delivery._has_due_jobs(timestamptz, text[], bigint[]) is
  'Return true if a job of one of these channels is due.';
