create function evaluator._quiet_message(
  p_metric text, p_device_id text, p_value double precision, p_operator text, p_threshold double precision
) returns text
language sql immutable
return p_metric || ' of ' || p_device_id || ' is '
  || coalesce(core.number_text(p_value) || ' (no longer ' || evaluator._condition(p_operator, p_threshold, 0) || ')',
    'no longer ' || evaluator._condition(p_operator, p_threshold, 0));

comment on function evaluator._quiet_message(text, text, double precision, text, double precision) is
  'Return the message of an alert that a quiet reading closes, for example "heat of boiler-1 is 20 (no longer > 80)".';
