-- Among bounds with their signs turned, width_bucket counts those at or above a value: le is "at most", to the bit.
create function core.histogram(p_seconds double precision[], p_bounds double precision[])
returns table (le text, value bigint, sum double precision)
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
as $$
  with counted as (
    select
      width_bucket(-s.seconds, array(select -b from unnest(p_bounds) b order by b desc)) as bounds_above,
      count(*) as n
    from unnest(p_seconds) s (seconds)
    group by 1
  )
  select
    bound.le::text,
    coalesce(sum(c.n), 0)::bigint,
    coalesce((select sum(s) from unnest(p_seconds) s), 0)
  from unnest(p_bounds || double precision 'Infinity') with ordinality as bound (le, place)
  left join counted c on c.bounds_above > cardinality(p_bounds) - bound.place
  group by bound.le, bound.place
  order by bound.place
$$;

comment on function core.histogram(double precision[], double precision[]) is
  'The rows of a gauge histogram over the seconds given: for each of the ascending bounds, and for infinity, how many '
  'are at most that, and the sum of all; null seconds do not count.';
