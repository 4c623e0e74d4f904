-- Reads newest first by the index of finished jobs, then one row by key for each job, so that older jobs cost nothing.
-- 2,000 are enough for a 99th percentile.
create view ops.recent_deliveries as
select
  extract(epoch from j.finished_at - e.recorded_at)::double precision as seconds_since_event,
  extract(epoch from j.finished_at - e.reading_received_at)::double precision as seconds_since_reading
from (
  select tenant_id, event_id, finished_at, state
  from public.notification_jobs
  where finished_at > core.now() - interval '1 hour'
  order by finished_at desc
  limit 2000
) j
cross join lateral (
  select n.recorded_at, n.reading_received_at
  from public.alert_events n
  where n.tenant_id = j.tenant_id and n.event_id = j.event_id
  limit 1
) e
where j.state = 'delivered';

comment on view ops.recent_deliveries is
  'Deliveries within the last hour, among the newest 2,000 notifications that ended: seconds from the alert event to '
  'the record of the delivery, and from the arrival of the reading that caused it (null if none did).';
