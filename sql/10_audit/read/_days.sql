-- A view that counts within each of these days is read day by day along the index of timestamp, and a condition on day
-- skips the other days. The first and the last day come from the same index. Rows that lie a century off get no day.
create view audit._days as
select d.day::date as day, d.day at time zone 'UTC' as starts_at, (d.day + interval '1 day') at time zone 'UTC' as ends_at
from (
  select
    greatest(min(l.timestamp), now() - interval '100 years') as first_at,
    least(max(l.timestamp), now() + interval '1 year') as last_at
  from public.audit_log l
) trail
cross join lateral generate_series(
  date_trunc('day', trail.first_at at time zone 'UTC'),
  trail.last_at at time zone 'UTC',
  interval '1 day'
) as d (day);

comment on view audit._days is 'Every day (UTC) from the first event of the audit trail to the last.';
