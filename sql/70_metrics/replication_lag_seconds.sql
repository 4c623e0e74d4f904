-- Postgres forgets the lag of a standby that has replayed everything. It shows the state of standbys only to members of
-- pg_read_all_stats, and a hidden state is no sample. A standby that has replayed all it received is level with its
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
  'Time by which the slowest standby is behind, or this server if it is a standby; absent without standbys, and if the '
  'exporter''s role may not see them.';
