create view metrics.evaluation_lag_seconds as
select greatest(coalesce(max(extract(epoch from core.now() - due_at)), 0), 0)::double precision as value
from ops.queues
where service = 'evaluator_iot';

comment on view metrics.evaluation_lag_seconds is
  'Time for which the oldest reading or due timer has waited for the evaluator, 0 if none waits.';
