create view metrics.replication_standbys as
select count(*) as value
from pg_stat_replication;

comment on view metrics.replication_standbys is 'Connected standbys and other receivers of the write-ahead log.';
