create view metrics.audit_holds as
select count(*) as value
from (select from audit.holds where released_at is null limit 10000) holds;

comment on view metrics.audit_holds is 'Legal holds in force, counted up to 10,000.';
