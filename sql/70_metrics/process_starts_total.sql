create view metrics.process_starts_total as
select known.service, coalesce(p.starts, 0) as value
from (
  values ('ui_iot'), ('evaluator_iot'), ('dispatcher'), ('delivery_worker'), ('ops_worker')
) known (service)
left join ops.process_starts p on p.tenant_id = 'system' and p.service = known.service;

comment on view metrics.process_starts_total is 'Process starts since the installation, by service.';
