-- Infinite instead of absent, so that an alert on a long time fires for a table that was never vacuumed.
create view metrics.table_last_vacuum_age_seconds as
select
  table_name,
  coalesce(
    extract(
      epoch from core.now() - greatest(pg_stat_get_last_vacuum_time(relid), pg_stat_get_last_autovacuum_time(relid))
    )::double precision,
    'infinity'
  ) as value
from ops.watched_tables
where is_hot;

comment on view metrics.table_last_vacuum_age_seconds is
  'Time since the last vacuum of the tables that live on updates and deletes, infinite if there was none.';
