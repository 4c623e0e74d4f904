-- A lane is a channel's pending jobs. A skip scan over the lane index finds the lanes, so that the backlog of a paused or
-- hanging channel costs one index probe. Slots are shared by tenant, then by channel. Each tenant gets its share of the free
-- slots, the tenant with the fewest jobs in hand first, and divides it among its lanes, the least busy and longest waiting
-- lane first. Lanes are visited only until there are enough jobs. No lane gives more than its share, so that a long lane does
-- not crowd out the short ones. Lanes whose jobs are only given up take no slot: they have a separate turn outside their
-- tenant's limit. Rows are compared and ordered by all columns of the lane index, which leaves the planner no other index,
-- even if its statistics are stale.
create function delivery._candidates(p_now timestamptz, p_limit integer, p_channel_limit integer, p_worker text)
returns table (
  tenant_id text,
  channel_id bigint,
  job_id bigint,
  place bigint,
  fate text
)
language sql
stable
rows 100
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_incremental_sort = off
set enable_sort = off
as $$
  with recursive lane as (
    (
      select j.tenant_id, j.channel_id, j.run_at
      from public.notification_jobs j
      where j.state = 'pending'
      order by j.tenant_id, j.channel_id, j.run_at
      limit 1
    )
    union all
    select n.tenant_id, n.channel_id, n.run_at
    from lane l
    cross join lateral (
      select j.tenant_id, j.channel_id, j.run_at
      from public.notification_jobs j
      where j.state = 'pending' and (j.tenant_id, j.channel_id) > (l.tenant_id, l.channel_id)
      order by j.tenant_id, j.channel_id, j.run_at
      limit 1
    ) n
  ), busy as materialized (
    select f.* from delivery._busy_channels(p_worker) f
  ), tenant_limit (jobs) as materialized (
    select delivery._allowed_of_tenant(p_limit + coalesce(sum(b.own), 0)::integer) from busy b
  ), due_lane as materialized (
    select
      l.tenant_id,
      l.channel_id,
      l.run_at,
      case when c.channel_id is null then 'channel_deleted' when not c.enabled then 'channel_disabled' end as fate,
      delivery._allowed_in_flight(p.limits, p.deliveries, p_channel_limit) - coalesce(f.jobs, 0) as room,
      coalesce(f.jobs, 0) as jobs
    from lane l
    left join public.notification_channels c on c.tenant_id = l.tenant_id and c.channel_id = l.channel_id
    left join busy f on f.tenant_id = l.tenant_id and f.channel_id = l.channel_id
    left join delivery.lanes p on p.tenant_id = l.tenant_id and p.channel_id = l.channel_id
    where l.run_at <= p_now
      and (
        c.enabled is not true
        or (
          coalesce(f.jobs, 0) < delivery._allowed_in_flight(p.limits, p.deliveries, p_channel_limit)
          and coalesce(p.paused_until, '-infinity') <= p_now
        )
      )
  ), turn as materialized (
    select
      d.tenant_id,
      array_agg(d.channel_id order by d.jobs, d.run_at) as channel_ids,
      array_agg(d.fate order by d.jobs, d.run_at) as fates,
      array_agg(d.room order by d.jobs, d.run_at) as rooms,
      count(*) as lanes,
      least(m.jobs - t.held, ceil(p_limit::numeric / count(*) over ())) as share
    from due_lane d
    left join (
      select b.tenant_id, sum(b.own) as jobs from busy b group by b.tenant_id
    ) h on h.tenant_id = d.tenant_id
    cross join lateral (select case when d.fate is null then coalesce(h.jobs, 0) else 0 end as held) t
    cross join tenant_limit m
    where t.held < m.jobs
    group by d.tenant_id, d.fate is null, t.held, m.jobs
    order by t.held, min(d.run_at)
  )
  select t.tenant_id, j.channel_id, j.job_id, j.place, j.fate
  from turn t
  cross join lateral (
    select
      d.channel_id, q.job_id, q.place,
      case
        when d.fate is not null then d.fate
        when q.kind <> 'opened' then delivery._call_off_reason(t.tenant_id, q.alert_id, d.channel_id, q.kind)
      end as fate
    from unnest(t.channel_ids, t.fates, t.rooms) as d (channel_id, fate, room)
    cross join lateral (
      select j.job_id, j.alert_id, j.kind, row_number() over (order by j.tenant_id, j.channel_id, j.run_at, j.job_id) as place
      from (
        select j.*
        from public.notification_jobs j
        where j.state = 'pending'
          and (j.tenant_id, j.channel_id) >= (t.tenant_id, d.channel_id)
          and (j.tenant_id, j.channel_id, j.run_at) <= (t.tenant_id, d.channel_id, p_now)
        order by j.tenant_id, j.channel_id, j.run_at, j.job_id
        limit greatest(500, 2 * p_limit)  -- many that wait for an earlier one are a cost of their own channel
      ) j
      where d.fate is not null
        or not exists (
          select
          from public.notification_jobs e
          where e.tenant_id = j.tenant_id and e.subject = j.subject and e.channel_id = j.channel_id
            and e.job_id < j.job_id and e.state in ('pending', 'leased')
        )
      limit least(case when d.fate is null then d.room end, ceil(t.share / t.lanes))
    ) q
    limit t.share
  ) j
  limit p_limit
$$;

comment on function delivery._candidates(timestamptz, integer, integer, text) is
  'Due jobs that may go now, the oldest live one of each subject and channel, with their place in their lane; fate is null, '
  'or why the job can never be sent. p_limit is the number of free slots of p_worker; no tenant gets more than its share. '
  'Those of the tenant with the fewest jobs in hand come first.';
