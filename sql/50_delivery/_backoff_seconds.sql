-- With the default base of five seconds, the eight attempts of a job span about an hour, so that a receiver may be down during
-- a deployment and still receive the alert. The jitter keeps the jobs of one outage from returning in one wave.
create function delivery._backoff_seconds(
  p_attempts integer,
  p_base_seconds double precision,
  p_max_seconds double precision
) returns double precision
language sql
volatile
return least(p_max_seconds, p_base_seconds * power(3, least(greatest(p_attempts, 1), 20) - 1)) * (0.5 + random());

comment on function delivery._backoff_seconds(integer, double precision, double precision) is
  'Return the seconds to wait after p_attempts attempts: the base, tripled with each attempt up to the maximum, times a random '
  '0.5 to 1.5.';
