create function evaluator._breaches(p_operator text, p_value double precision, p_threshold double precision) returns boolean
language sql immutable parallel safe
return case p_operator
  when '>' then p_value > p_threshold
  when '>=' then p_value >= p_threshold
  when '<' then p_value < p_threshold
  when '<=' then p_value <= p_threshold
  when '=' then p_value = p_threshold
  when '!=' then p_value <> p_threshold
end;

comment on function evaluator._breaches(text, double precision, double precision) is
  'Return true if a value breaches a rule''s operator and threshold.';
