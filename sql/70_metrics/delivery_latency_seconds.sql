create view metrics.delivery_latency_seconds as
select h.le, h.value, h.sum
from core.histogram(
  array(select seconds_since_event from ops.recent_deliveries),
  '{0.005,0.01,0.025,0.05,0.075,0.1,0.25,0.5,0.75,1,2.5,5,7.5,10,30,60,300,900,3600}'
) h;

comment on view metrics.delivery_latency_seconds is
  'Time from an alert event to the end of its delivery, within the last hour, counting the newest 2,000.';
