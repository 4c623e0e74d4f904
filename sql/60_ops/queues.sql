-- The only definition of the six queues for all views of schema metrics, so that depth and ages agree. A branch that a
-- condition on service excludes costs nothing, and neither does a column that is not read. Counting stops at 250,000, so
-- that a backlog does not make its own metric slow. Each constant has its name in every branch: Postgres would write it
-- down without a name and choose another one when a dump is restored.
create view ops.queues as
select service, queue_name, depth, coalesce(oldest_at, due_at) as oldest_at, due_at
from (
  select
    'evaluator_iot' as service,
    'inbox' as queue_name,
    (select count(*) from (select from evaluator.inbox limit 250000) waiting) as depth,
    -- A skip scan: in each lane the key's first row is the one that came first. It looks at the first 20,000 lanes.
    (
      with recursive lane (tenant_id, shard, received_at) as (
        (
          select i.tenant_id, i.shard, i.received_at
          from evaluator.inbox i
          order by i.tenant_id, i.shard, i.arrival
          limit 1
        )
        union all
        select n.tenant_id, n.shard, n.received_at
        from lane l
        cross join lateral (
          select i.tenant_id, i.shard, i.received_at
          from evaluator.inbox i
          where (i.tenant_id, i.shard) > (l.tenant_id, l.shard)
          order by i.tenant_id, i.shard, i.arrival
          limit 1
        ) n
      )
      select min(f.received_at) from (select l.received_at from lane l limit 20000) f
    ) as due_at,
    null::timestamptz as oldest_at  -- set only if rows can exist before they are due
  union all
  select
    'evaluator_iot' as service,
    'pending_timers' as queue_name,
    (select count(*) from (select from public.rule_state where due_at <= core.now() limit 250000) waiting),
    (select due_at from public.rule_state where due_at <= core.now() order by due_at limit 1),
    null as oldest_at
  union all
  select
    'dispatcher' as service,
    'alert_events' as queue_name,
    (select count(*) from (select from public.alert_events where dispatched_at is null limit 250000) waiting),
    (select recorded_at from public.alert_events where dispatched_at is null order by event_id limit 1),
    null as oldest_at
  union all
  select
    'delivery_worker' as service,
    'notification_jobs' as queue_name,
    (
      select count(*)
      from (select from public.notification_jobs where state in ('pending', 'leased') limit 250000) waiting
    ),
    delivery._due_since(core.now(), 5000),
    -- Numbers ascend with time. No index of unfinished jobs has their order, so all are read.
    (
      select j.created_at
      from (
        select waiting.tenant_id, waiting.job_id
        from (
          select n.tenant_id, n.job_id
          from public.notification_jobs n
          where n.state in ('pending', 'leased')
          limit 250000
        ) waiting
        order by waiting.job_id
        limit 1
      ) first
      join public.notification_jobs j on j.tenant_id = first.tenant_id and j.job_id = first.job_id
    )
  union all
  select
    'ops_worker' as service,
    'escalations' as queue_name,
    (select count(*) from (select from ops.escalations where due_at <= core.now() limit 250000) waiting),
    (select due_at from ops.escalations where due_at <= core.now() order by due_at limit 1),
    null as oldest_at
  union all
  select
    'ops_worker' as service,
    'audit_unsealed' as queue_name,
    audit._unsealed_count(250000),
    audit._unsealed_since(),
    null as oldest_at
) queue;

comment on view ops.queues is
  'The six queues, one row each even if empty: depth (counted up to 250,000), the time since when the oldest row '
  'exists, and the time since when the oldest row that could be taken now is due (null if there is none).';
