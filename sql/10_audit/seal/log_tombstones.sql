create view audit.log_tombstones as
select segment, last_block, first_block, row_count, released_at, note
from audit.tombstones;

comment on view audit.log_tombstones is 'Months that retention dropped, each with its signed note.';
