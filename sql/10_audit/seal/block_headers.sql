create view audit.block_headers as
select
  block_no,
  segment,
  previous_snapshot::text,
  snapshot::text,
  snapshot_xmax::text,
  first_position,
  row_count,
  min_timestamp,
  max_timestamp,
  rows_root,
  leaf_hash,
  sealed_at,
  epoch,
  entry
from audit.blocks;

comment on view audit.block_headers is 'Sealed blocks and entries, with the snapshots as the text that is hashed.';
