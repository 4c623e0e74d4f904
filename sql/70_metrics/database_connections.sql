-- Postgres shows the state of other roles' sessions only to members of pg_read_all_stats. Other sessions count as
-- hidden.
create view metrics.database_connections as
with counted as (
  select
    case
      when backend_type is null then 'hidden'
      when state in ('active', 'idle', 'idle in transaction', 'idle in transaction (aborted)') then state
      else 'other'
    end as state,
    count(*) as connections
  from pg_stat_activity
  where datname = current_database()
    and (backend_type is null or backend_type = 'client backend')
  group by 1
)
select known.state, coalesce(c.connections, 0) as value
from (
  values ('active'), ('idle'), ('idle in transaction'), ('idle in transaction (aborted)'), ('other'), ('hidden')
) known (state)
left join counted c on c.state = known.state;

comment on view metrics.database_connections is
  'Connections to the database by state; hidden are those whose state the exporter''s role may not see.';
