create view api.queues as
select d.service, d.queue_name, d.value::bigint as depth, a.value::double precision as oldest_age_seconds
from metrics.queue_depth d
join metrics.queue_oldest_age_seconds a using (service, queue_name);

comment on view api.queues is 'Depth and oldest age of every queue, which each process shows for its own queues.';
