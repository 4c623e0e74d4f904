-- Postgres shows other roles' transactions only to members of pg_read_all_stats. With a hidden session the age is
-- unknown, which is no sample. The session that reads this view always has a transaction and does not count.
create view metrics.oldest_transaction_age_seconds as
with activity as (
  select bool_or(backend_type is null) as hidden, min(xact_start) as since
  from pg_stat_activity
  where datname = current_database()
    and (backend_type is null or backend_type = 'client backend')
    and pid <> pg_backend_pid()
),
prepared as (
  select min(prepared) as since
  from pg_prepared_xacts
  where database = current_database()
)
select
  case
    when not coalesce(a.hidden, false)
      then greatest(coalesce(extract(epoch from now() - least(a.since, p.since)), 0), 0)::double precision
  end as value
from activity a
cross join prepared p;

comment on view metrics.oldest_transaction_age_seconds is
  'Age of the oldest open or prepared transaction; absent if the exporter''s role may not see all sessions.';
