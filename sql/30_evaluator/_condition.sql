create function evaluator._condition(p_operator text, p_threshold double precision, p_for_seconds integer) returns text
language sql immutable
return p_operator || ' ' || core.number_text(p_threshold)
  || case when p_for_seconds > 0 then ' for ' || p_for_seconds::text || ' s' else '' end;

comment on function evaluator._condition(text, double precision, integer) is
  'Return a rule''s condition as messages show it, for example "> 80 for 60 s".';
