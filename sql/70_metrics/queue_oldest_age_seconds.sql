create view metrics.queue_oldest_age_seconds as
select
  service,
  queue_name,
  greatest(coalesce(extract(epoch from core.now() - oldest_at), 0), 0)::double precision as value
from ops.queues;

comment on view metrics.queue_oldest_age_seconds is
  'Age of the oldest row of each queue, including notifications that are scheduled for a retry, 0 if there is none.';
