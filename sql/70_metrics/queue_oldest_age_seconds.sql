create view metrics.queue_oldest_age_seconds as
select
  service,
  queue_name,
  greatest(coalesce(extract(epoch from core.now() - oldest_at), 0), 0)::double precision as value
from ops.queues;

comment on view metrics.queue_oldest_age_seconds is
  'How long the oldest due row of each queue has waited, 0 when none is due.';
