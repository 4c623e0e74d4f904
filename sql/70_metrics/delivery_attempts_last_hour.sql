create view metrics.delivery_attempts_last_hour as
with counted as (
  select outcome, count(*) as attempts
  from (
    select outcome
    from public.delivery_attempts
    where finished_at > core.now() - interval '1 hour'
    order by finished_at desc
    limit 10000
  ) newest
  group by outcome
)
select known.outcome, coalesce(c.attempts, 0) as value
from (values ('delivered'), ('retry'), ('limited'), ('refused'), ('gone'), ('unknown')) known (outcome)
left join counted c on c.outcome = known.outcome;

comment on view metrics.delivery_attempts_last_hour is
  'Delivery attempts that ended within the last hour, by outcome, counting the newest 10,000.';
