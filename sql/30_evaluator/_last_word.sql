create function evaluator._last_word(p_metric text, p_device_id text, p_value double precision, p_reason text) returns text
language sql immutable
return p_metric || ' of ' || p_device_id || ' was ' || core.number_text(p_value) || ' at the end: ' || p_reason;

comment on function evaluator._last_word(text, text, double precision, text) is
  'Return the message of an alert that was closed without a reading, for example "heat of boiler-1 was 95 at the end: rule disabled"; '
  'null without a value.';
