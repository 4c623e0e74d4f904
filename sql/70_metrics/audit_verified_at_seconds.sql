create view metrics.audit_verified_at_seconds as
select v.scope, extract(epoch from v.verified_at)::double precision as value
from audit.verifications v;

comment on view metrics.audit_verified_at_seconds is
  'Unix time of the ops worker''s last verification: rows sealed within a day (day), every row (all), or the SQL layer '
  '(layer).';
