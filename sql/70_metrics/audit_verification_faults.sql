create view metrics.audit_verification_faults as
select s.scope, coalesce(v.fault_count, 0)::double precision as value
from (values ('all'), ('day'), ('layer')) s (scope)
left join audit.verifications v on v.scope = s.scope;

comment on view metrics.audit_verification_faults is
  'Faults that the newest verification of the sealed log found; day is what was sealed within a day, all is every '
  'row, layer is what differs in functions, triggers, policies, grants, settings and roles.';
