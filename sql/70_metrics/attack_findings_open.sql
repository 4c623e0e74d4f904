create view metrics.attack_findings_open as
select
  t.kind,
  (
    select count(*)
    from (select from audit.attack_findings f where f.kind = t.kind and f.closed_at is null limit 10000) open
  ) as value
from audit.attack_thresholds t;

comment on view metrics.attack_findings_open is 'Attacks on accounts that go on now, by kind, each counted up to 10,000.';
