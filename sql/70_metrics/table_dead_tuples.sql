create view metrics.table_dead_tuples as
select table_name, pg_stat_get_dead_tuples(relid) as value
from ops.watched_tables
where is_hot;

comment on view metrics.table_dead_tuples is
  'Dead rows that wait for vacuum, in the tables that live on updates and deletes, as the server estimates them.';
