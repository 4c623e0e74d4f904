-- Rows are compared and ordered by all columns of their index, which leaves the planner no other index. With plain equality
-- and stale statistics it may walk back through the attempts of every other channel.
create function delivery._last_attempt(p_channel_id bigint, p_outcome text)
returns table (attempt_id bigint, finished_at timestamptz, error text)
language sql
stable
security definer
rows 1
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
set enable_incremental_sort = off
set enable_sort = off
as $$
  select a.attempt_id, a.finished_at, a.error
  from public.delivery_attempts a
  where (a.tenant_id, a.channel_id, a.outcome) >= ((select core.current_tenant()), p_channel_id, p_outcome)
    and (a.tenant_id, a.channel_id, a.outcome) <= ((select core.current_tenant()), p_channel_id, p_outcome)
  order by a.tenant_id desc, a.channel_id desc, a.outcome desc, a.attempt_id desc
  limit 1
$$;

comment on function delivery._last_attempt(bigint, text) is
  'Return the newest attempt of a channel of the current tenant with this outcome.';
