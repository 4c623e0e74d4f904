create view audit.password_spraying as
select f.kind, f.subject, f.first_at, f.last_at, f.failures, f.accounts, f.addresses
from audit._password_spraying(core.now()) f;

comment on view audit.password_spraying is
  'Many accounts are being tried now, a few times each: one row, or none, by audit.attack_thresholds. Example: select * from audit.password_spraying;';
