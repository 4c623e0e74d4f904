-- A job cannot be taken while it waits for an earlier job of its subject and channel, or for a paused channel. Only the oldest
-- row of each subject and channel is checked, oldest first. The SET clauses leave the planner only the index of pending jobs,
-- even if its statistics are stale.
create function delivery._due_since(p_now timestamptz, p_limit integer) returns timestamptz
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  select coalesce(
    (
      select first.run_at
      from (
        select n.tenant_id, n.subject, n.channel_id, min(n.run_at) as run_at
        from (
          select tenant_id, subject, channel_id, run_at
          from public.notification_jobs
          where state = 'pending' and run_at <= p_now
          order by run_at, job_id
          limit p_limit
        ) n
        group by n.tenant_id, n.subject, n.channel_id
        order by run_at
        limit p_limit  -- keeps the order, so that the first job that can be taken ends the search
      ) due
      cross join lateral (
        select j.state, j.run_at
        from public.notification_jobs j
        where j.tenant_id = due.tenant_id and j.subject = due.subject and j.channel_id = due.channel_id
          and j.state in ('pending', 'leased')
        order by j.tenant_id, j.subject, j.channel_id, j.job_id
        limit 1
      ) first
      left join delivery.lanes p on p.tenant_id = due.tenant_id and p.channel_id = due.channel_id
      where first.state = 'pending' and first.run_at <= p_now
        -- A receiver that takes one request a second is not stuck. A worker should have tried it a minute after its pause.
        and coalesce(p.paused_until, '-infinity') <= p_now - case when p.limits > 0 then interval '1 minute' else '0' end
      order by due.run_at
      limit 1
    ),
    (
      select run_at
      from public.notification_jobs
      where state = 'pending' and run_at <= p_now
      order by run_at, job_id
      offset p_limit
      limit 1
    )
  )
$$;

comment on function delivery._due_since(timestamptz, integer) is
  'Return the due time of the oldest job that can be taken, or null if there is none. Only p_limit jobs are checked; if none of '
  'these can be taken, the next one counts without a check.';
