-- Severity and bucket are one small number, so that even very many alerts are grouped in memory. width_bucket counts the
-- bounds that an alert is younger than or exactly as old as.
create view metrics.alert_age_seconds as
with known (place, severity) as (
  values (0, 'info'), (1, 'warning'), (2, 'error'), (3, 'critical')
),
bound (place, seconds) as (
  values
    (8, 60::double precision), (7, 300), (6, 900), (5, 3600), (4, 14400), (3, 86400), (2, 604800), (1, 2592000),
    (0, 'infinity')
),
open as (
  select
    16 * case severity when 'info' then 0 when 'warning' then 1 when 'error' then 2 else 3 end
    + width_bucket(
      recorded_at,
      (select array_agg(core.now() - seconds * interval '1 second' order by place) from bound where place > 0)
    ) as mark
  from public.alerts
  where status <> 'closed'
  limit 250000
),
counted as (
  select mark / 16 as severity, mark % 16 as bounds, count(*) as alerts
  from open
  group by mark
)
select known.severity, bound.seconds::text as le, coalesce(sum(c.alerts), 0)::bigint as value
from known
cross join bound
left join counted c on c.severity = known.place and c.bounds >= bound.place
group by known.place, known.severity, bound.place, bound.seconds;

comment on view metrics.alert_age_seconds is
  'Age of alerts that are not closed, including acknowledged ones, by severity, counting up to 250,000.';
