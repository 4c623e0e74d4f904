create view metrics.queue_oldest_due_seconds as
select
  service,
  queue_name,
  greatest(coalesce(extract(epoch from core.now() - due_at), 0), 0)::double precision as value
from ops.queues;

comment on view metrics.queue_oldest_due_seconds is
  'Time for which the oldest row that could be taken from each queue has been due, 0 if none is due.';
