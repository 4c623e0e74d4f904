-- Finished jobs are history and not counted here; the dead ones have a metric of their own.
create view metrics.notification_jobs as
select
  'due' as state,
  (
    select count(*)
    from (select from public.notification_jobs where state = 'pending' and run_at <= core.now() limit 1000000) jobs
  ) as value
union all
select
  'scheduled',
  (
    select count(*)
    from (select from public.notification_jobs where state = 'pending' and run_at > core.now() limit 1000000) jobs
  )
union all
select
  'leased',
  (select count(*) from (select from public.notification_jobs where state = 'leased' limit 1000000) jobs);

comment on view metrics.notification_jobs is
  'Unfinished notification jobs: due, scheduled for later, or leased to a worker, each counted up to 1,000,000.';
