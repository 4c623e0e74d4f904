create view metrics.reading_delivery_latency_seconds as
select h.le, h.value, h.sum
from core.histogram(
  array(select seconds_since_reading from ops.recent_deliveries where seconds_since_reading is not null),
  '{0.005,0.01,0.025,0.05,0.075,0.1,0.25,0.5,0.75,1,2.5,5,7.5,10,30,60,300,900,3600}'
) h;

comment on view metrics.reading_delivery_latency_seconds is
  'Time from the arrival of a reading to the end of the delivery that it caused, within the last hour, counting the '
  'newest 2,000.';
