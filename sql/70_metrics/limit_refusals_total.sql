create view metrics.limit_refusals_total as
select known.limit_name, coalesce(r.refused, 0) as value
from (
  values ('rules'), ('devices'), ('series'), ('channels'), ('alerts_open'), ('transitions_per_minute'),
    ('requests'), ('trace_lookups'), ('audit_tails')
) known (limit_name)
left join (
  select l.limit_name, sum(l.refused)::bigint as refused from ops.limit_refusals l group by l.limit_name
) r using (limit_name);

comment on view metrics.limit_refusals_total is
  'Refusals by limits of tenants since the installation, by limit; pulse tenant limits shows those of one tenant.';
