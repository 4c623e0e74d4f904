create view audit.attacks as
select
  f.finding_id, f.kind, f.subject, f.first_at, f.last_at, f.failures, f.accounts, f.addresses, f.detected_at, f.closed_at,
  f.alert_id
from audit.attack_findings f;

comment on view audit.attacks is
  'All attacks that were found. Those that go on have no closed_at. Example: select * from audit.attacks order by '
  'finding_id desc limit 20;';
