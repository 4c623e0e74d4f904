create view metrics.queue_depth as
select service, queue_name, depth as value
from ops.queues;

comment on view metrics.queue_depth is 'Rows that wait in each queue, counted up to 250,000.';
