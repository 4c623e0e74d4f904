create view metrics.audit_verified_at_seconds as
select v.scope, extract(epoch from v.verified_at)::double precision as value
from audit.verifications v;

comment on view metrics.audit_verified_at_seconds is
  'Unix time at which the ops worker last verified the sealed log by itself, what was sealed within a day (day), all '
  'of it (all), or the SQL layer (layer).';
