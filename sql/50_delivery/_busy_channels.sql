-- This is a function because of its row estimate. Leased jobs change too fast for statistics, and a planner that expects one
-- row joins them by a nested loop. Without a sort only the index of leases gives the order; by the same statistics the index
-- of live jobs costs no more, but it leads through all waiting jobs.
create function delivery._busy_channels(p_worker text default null)
returns table (
  tenant_id text,
  channel_id bigint,
  jobs bigint,
  own bigint
)
language sql
stable
rows 1000
set search_path = pg_catalog, pg_temp
set jit = off
set enable_sort = off
as $$
  select j.tenant_id, j.channel_id, count(*), count(*) filter (where j.leased_by = p_worker)
  from (
    select j.tenant_id, j.channel_id, j.leased_by
    from public.notification_jobs j
    where j.state = 'leased'
    order by j.lease_until
    offset 0
  ) j
  group by j.tenant_id, j.channel_id
$$;

comment on function delivery._busy_channels(text) is
  'Return the number of jobs that are being sent for each channel: by all workers, and by p_worker alone.';
