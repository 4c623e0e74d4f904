create function evaluator._most_changes() returns integer
language sql immutable parallel safe
return 10;

comment on function evaluator._most_changes() is
  'Return the maximum number of openings and closings of one rule and device that a pass writes separately. If there are more, '
  'they become one flapping alert.';
