-- No SET clauses, so that the planner inlines it.
create function delivery._hung(p_duration_ms double precision, p_hanging_ms double precision) returns boolean
language sql
immutable
return coalesce(p_duration_ms >= p_hanging_ms, false);

comment on function delivery._hung(double precision, double precision) is
  'Return true if an attempt ran into its deadline. An answer may have begun before: a receiver that sends bytes slowly holds a '
  'slot as long as one that sends none.';
