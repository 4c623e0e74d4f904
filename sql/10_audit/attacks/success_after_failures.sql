create view audit.success_after_failures as
select f.kind, f.subject, f.first_at, f.last_at, f.failures, f.accounts, f.addresses
from audit._success_after_failures(core.now()) f;

comment on view audit.success_after_failures is
  'Accounts that were just let in after many failed tries, from an address that failed as often itself or that is new '
  'to the account, by audit.attack_thresholds. Example: select * from audit.success_after_failures;';
