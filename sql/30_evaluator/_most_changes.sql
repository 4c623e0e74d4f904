create function evaluator._most_changes() returns integer
language sql immutable parallel safe
return 10;

comment on function evaluator._most_changes() is
  'Most openings and closings of one rule and device that a pass writes one by one; more are one flapping alert.';
