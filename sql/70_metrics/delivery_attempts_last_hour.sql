create view metrics.delivery_attempts_last_hour as
with newest as (
  select outcome
  from public.delivery_attempts
  where finished_at > now() - interval '1 hour'
  order by finished_at desc
  limit 100000
)
select known.outcome, count(n.outcome) as value
from (values ('delivered'), ('retry'), ('refused'), ('unknown')) known (outcome)
left join newest n on n.outcome = known.outcome
group by known.outcome;

comment on view metrics.delivery_attempts_last_hour is
  'Delivery attempts that ended within the last hour by outcome, counting its newest 100,000.';
