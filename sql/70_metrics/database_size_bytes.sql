create view metrics.database_size_bytes as
select pg_database_size(current_database()) as value;

comment on view metrics.database_size_bytes is 'Disk space of the database.';
