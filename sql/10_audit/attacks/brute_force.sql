create view audit.brute_force as
select f.kind, f.subject, f.first_at, f.last_at, f.failures, f.accounts, f.addresses
from audit._brute_force(core.now()) f;

comment on view audit.brute_force is
  'Accounts under a guessing attack now, by audit.attack_thresholds. Example: select * from audit.brute_force;';
