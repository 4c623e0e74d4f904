create view audit.credential_stuffing as
select f.kind, f.subject, f.first_at, f.last_at, f.failures, f.accounts, f.addresses
from audit._credential_stuffing(core.now()) f;

comment on view audit.credential_stuffing is
  'Addresses that try many accounts now, by audit.attack_thresholds. Example: select * from audit.credential_stuffing;';
