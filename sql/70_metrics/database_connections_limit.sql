create view metrics.database_connections_limit as
select current_setting('max_connections')::integer as value;

comment on view metrics.database_connections_limit is 'Maximum number of connections to the server.';
