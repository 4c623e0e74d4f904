create view metrics.process_stops_total as
select known.service, coalesce(p.stops, 0) as value
from (
  values ('ui_iot'), ('evaluator_iot'), ('dispatcher'), ('delivery_worker'), ('ops_worker')
) known (service)
left join ops.process_starts p on p.tenant_id = 'system' and p.service = known.service;

comment on view metrics.process_stops_total is 'Clean process stops since the installation, by service.';
