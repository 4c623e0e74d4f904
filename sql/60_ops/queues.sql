-- The one definition of the six queues: metrics.queue_depth and metrics.queue_oldest_age_seconds read it, so that
-- depth and age cannot disagree. A branch that a caller's condition on service excludes costs nothing, nor does a
-- column that nobody reads. Counting stops at a million: a backlog must not make the view that tells of it too slow.
create view ops.queues as
select
  'evaluator_iot' as service,
  'inbox' as queue_name,
  (select count(*) from (select from evaluator.inbox limit 1000000) waiting) as depth,
  -- In each shard the key's first row is the one that came first.
  (
    select min(first.received_at)
    from evaluator.shards s
    cross join lateral (
      select i.received_at from evaluator.inbox i where i.shard = s.shard order by i.reading_id limit 1
    ) first
  ) as oldest_at
union all
select
  'evaluator_iot',
  'pending_timers',
  (
    select count(*)
    from (
      select
      from evaluator.shards s
      join public.rule_state r on r.shard = s.shard and r.due_at <= core.now()
      limit 1000000
    ) waiting
  ),
  (
    select min(first.due_at)
    from evaluator.shards s
    cross join lateral (
      select r.due_at
      from public.rule_state r
      where r.shard = s.shard and r.due_at <= core.now()
      order by r.due_at
      limit 1
    ) first
  )
union all
select
  'dispatcher',
  'alert_events',
  (select count(*) from (select from public.alert_events where dispatched_at is null limit 1000000) waiting),
  (select recorded_at from public.alert_events where dispatched_at is null order by event_id limit 1)
union all
select
  'delivery_worker',
  'notification_jobs',
  (
    select count(*)
    from (select from public.notification_jobs where state in ('pending', 'leased') limit 1000000) waiting
  ),
  least(
    (
      select run_at
      from public.notification_jobs
      where state = 'pending' and run_at <= core.now()
      order by run_at
      limit 1
    ),
    (select min(run_at) from public.notification_jobs where state = 'leased')
  )
union all
select
  'ops_worker',
  'escalations',
  (select count(*) from (select from ops.escalations where due_at <= core.now() limit 1000000) waiting),
  (select due_at from ops.escalations where due_at <= core.now() order by due_at limit 1)
union all
select
  'ops_worker',
  'audit_unsealed',
  audit._unsealed_count(1000000),
  audit._unsealed_since();

comment on view ops.queues is
  'The six queues, a row each also when empty: rows that wait (counted up to 1,000,000) and since when the oldest has '
  'waited, null when none is due.';
