-- The sequence that numbers readings is the only count that costs nothing.
create view metrics.ingest_readings_total as
select case when is_called then last_value else 0 end as value
from public.telemetry_reading_id_seq;

comment on view metrics.ingest_readings_total is
  'Readings of known devices that arrived so far, counting a reading that is sent twice as two.';
