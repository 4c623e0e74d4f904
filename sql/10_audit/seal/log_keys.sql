create view audit.log_keys as
select key_id, name, public_key, first_used_at
from audit.signing_keys;

comment on view audit.log_keys is
  'Public keys that signed checkpoints. For information only: verify with a copy from outside this database.';
