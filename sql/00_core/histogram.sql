-- width_bucket counts bounds at or below a value. With the signs of bounds and values turned it counts those at or
-- above, as le needs.
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
  'Return the rows of a gauge histogram over seconds: for each ascending bound, and for infinity, the number of values '
  'at or below it, and the sum of all values. Null values do not count.';
