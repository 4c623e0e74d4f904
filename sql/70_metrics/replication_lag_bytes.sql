create view metrics.replication_lag_bytes as
select
  case
    when pg_is_in_recovery() then greatest(pg_wal_lsn_diff(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()), 0)
    else (
      select case when not bool_or(state is null) then max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)) end
      from pg_stat_replication
    )
  end as value;

comment on view metrics.replication_lag_bytes is
  'Write-ahead log that the slowest standby has not replayed, or, on a standby, that it received and has not replayed; '
  'absent without standbys, and if the exporter''s role may not see them.';
