create view metrics.table_size_bytes as
select w.table_name, sum(pg_total_relation_size(coalesce(i.inhrelid, w.relid)))::bigint as value
from ops.watched_tables w
left join pg_inherits i on i.inhparent = w.relid
group by w.table_name;

comment on view metrics.table_size_bytes is 'Disk space of the tables that grow, including their indexes and partitions.';
