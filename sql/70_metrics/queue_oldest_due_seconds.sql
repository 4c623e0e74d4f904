create view metrics.queue_oldest_due_seconds as
select
  service,
  queue_name,
  greatest(coalesce(extract(epoch from core.now() - due_at), 0), 0)::double precision as value
from ops.queues;

comment on view metrics.queue_oldest_due_seconds is
  'How long each queue has had a row that could be taken, by the oldest that nobody took, 0 when none is due.';
