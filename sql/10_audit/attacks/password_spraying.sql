create view audit.password_spraying as
select f.kind, f.subject, f.first_at, f.last_at, f.failures, f.accounts, f.addresses
from audit._password_spraying(core.now()) f;

comment on view audit.password_spraying is
  'One row while many accounts are tried a few times each, by audit.attack_thresholds. Example: select * from '
  'audit.password_spraying;';
