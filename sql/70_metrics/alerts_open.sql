create view metrics.alerts_open as
select known.severity, count(a.alert_id) as value
from (values ('info'), ('warning'), ('error'), ('critical')) known (severity)
left join public.alerts a on a.severity = known.severity and a.status <> 'closed'
group by known.severity;

comment on view metrics.alerts_open is 'Alerts that are not closed, acknowledged ones included, by severity.';
