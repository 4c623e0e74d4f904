create view audit.log_checkpoints as
select tree_size, root, row_count, signed_at, key_id, note
from audit.checkpoints;

comment on view audit.log_checkpoints is 'All signed checkpoints of the log.';
