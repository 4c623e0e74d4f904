-- Five seconds, then three times as long each time: the eight attempts of a job span about an hour, so that a receiver may
-- be down over a deploy or a lunch and still hear of the alert. The jitter keeps the jobs of one outage from coming back
-- in one wave.
create function delivery._backoff_seconds(
  p_attempts integer,
  p_base_seconds double precision,
  p_max_seconds double precision
) returns double precision
language sql
volatile
return least(p_max_seconds, p_base_seconds * power(3, least(greatest(p_attempts, 1), 20) - 1)) * (0.5 + random());

comment on function delivery._backoff_seconds(integer, double precision, double precision) is
  'Seconds to wait after so many attempts: tripling from the base up to the maximum, times a random 0.5 to 1.5.';
