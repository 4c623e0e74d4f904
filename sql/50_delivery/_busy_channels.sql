-- A function for its row estimate: the leased jobs come and go too fast for statistics, and a planner that expects one
-- row joins it by comparing everything with everything. Without a sort only the index of leases gives the order; the
-- index of live jobs, which is no dearer by the same statistics, would lead through all that waits.
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
  'Jobs being sent now, for each channel that has any: over all workers, and by p_worker alone.';
