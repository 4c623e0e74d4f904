-- Infinite rather than absent: a rule that asks for "longer than" must hold for a table that was never vacuumed.
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
  'Time since vacuum was last through with the tables that live on updates and deletes, infinite when it never was.';
