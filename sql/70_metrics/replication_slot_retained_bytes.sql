create view metrics.replication_slot_retained_bytes as
select
  coalesce(
    max(
      pg_wal_lsn_diff(
        case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, restart_lsn
      )
    ),
    0
  ) as value
from pg_replication_slots;

comment on view metrics.replication_slot_retained_bytes is
  'Write-ahead log that the most delayed replication slot keeps on disk, 0 without slots.';
