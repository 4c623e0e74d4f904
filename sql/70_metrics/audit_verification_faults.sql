create view metrics.audit_verification_faults as
select s.scope, coalesce(v.fault_count, 0)::double precision as value
from (values ('all'), ('day'), ('layer')) s (scope)
left join audit.verifications v on v.scope = s.scope;

comment on view metrics.audit_verification_faults is
  'Faults found by the newest verification: rows sealed within a day (day), every row (all), or functions, triggers, '
  'policies, grants, settings and roles (layer).';
