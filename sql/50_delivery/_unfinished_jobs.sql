-- The SET clauses leave the planner only one pass and a hash table. With stale statistics it may expect one row and sort a
-- hundred thousand on disk.
create function delivery._unfinished_jobs(p_now timestamptz, p_limit bigint)
returns table (
  tenant_id text,
  channel_id bigint,
  due bigint,
  scheduled bigint,
  leased bigint
)
language sql
stable
security definer
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_sort = off
as $$
  select
    j.tenant_id,
    j.channel_id,
    count(*) filter (where j.run_at <= p_now),
    count(*) filter (where j.run_at > p_now),
    0
  from (
    select j.tenant_id, j.channel_id, j.run_at
    from public.notification_jobs j
    where j.state = 'pending'
    limit p_limit
  ) j
  group by j.tenant_id, j.channel_id
  union all
  select b.tenant_id, b.channel_id, 0, 0, b.jobs
  from delivery._busy_channels() b
$$;

comment on function delivery._unfinished_jobs(timestamptz, bigint) is
  'Return the numbers of jobs that are due, scheduled and leased, in one or two rows for each channel. At most p_limit jobs that '
  'are not leased are counted.';
