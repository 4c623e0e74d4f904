-- A function for its row estimate: the leased jobs come and go too fast for statistics, and a planner that expects one
-- row joins it by comparing everything with everything.
create function delivery._busy_channels()
returns table (
  tenant_id text,
  channel_id bigint,
  jobs bigint
)
language sql
stable
rows 1000
set search_path = pg_catalog, pg_temp
as $$
  select j.tenant_id, j.channel_id, count(*)
  from public.notification_jobs j
  where j.state = 'leased'
  group by j.tenant_id, j.channel_id
$$;

comment on function delivery._busy_channels() is 'Jobs being sent now, for each channel that has any, over all workers.';
