-- Of a standby that has replayed all, Postgres forgets the lag. What standbys say is shown to members of
-- pg_read_all_stats only, and what is hidden is no sample. A standby that has replayed all it got is level with its
-- primary only while it is connected.
create view metrics.replication_lag_seconds as
select
  case
    when not pg_is_in_recovery() then (
      select case when not bool_or(state is null) then extract(epoch from max(coalesce(replay_lag, interval '0'))) end
      from pg_stat_replication
    )
    when pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() and exists (select from pg_stat_wal_receiver) then 0
    else extract(epoch from now() - pg_last_xact_replay_timestamp())
  end::double precision as value;

comment on view metrics.replication_lag_seconds is
  'How far the slowest standby is behind, or this server where it is one; absent without standbys and where the '
  'exporter''s role may not see them.';
