-- Superseded jobs are history and need no redrive.
create view metrics.dead_letters as
select count(*) as value
from (
  select from public.notification_jobs where state = 'dead' and dead_reason is distinct from 'superseded' limit 100000
) jobs;

comment on view metrics.dead_letters is
  'Notification jobs that were given up and are neither redriven, superseded nor pruned, counted up to 100,000.';
