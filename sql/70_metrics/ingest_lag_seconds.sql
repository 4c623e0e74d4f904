-- Samples 250 pages of the newest readings, different ones each time: all of a small fleet, part of a large one.
create view metrics.ingest_lag_seconds as
select h.le, h.value, h.sum
from core.histogram(
  array(
    select extract(epoch from received_at - timestamp)::double precision
    from public.device_state
    tablesample system (
      (select least(100, 250 * 100.0 * current_setting('block_size')::integer
        / greatest(pg_relation_size('public.device_state'), 1)))
    )
    where received_at > (select core.now() - interval '5 minutes')
  ),
  '{0.1,0.5,1,2.5,5,10,30,60,300,900,3600,21600,86400}'
) h;

comment on view metrics.ingest_lag_seconds is
  'Time from measurement, by the device''s clock, to arrival, of the newest readings that arrived within the last 5 '
  'minutes, counting a sample of about 10,000.';
