create view metrics.queue_oldest_age_seconds as
select
  service,
  queue_name,
  greatest(coalesce(extract(epoch from core.now() - oldest_at), 0), 0)::double precision as value
from ops.queues;

comment on view metrics.queue_oldest_age_seconds is
  'How long the oldest row of each queue has been there, notifications scheduled for another try included, 0 when '
  'there is none.';
