create function evaluator._flapping_message(p_metric text, p_device_id text, p_changes integer) returns text
language sql immutable
return p_metric || ' of ' || p_device_id || ' opened and closed the alert ' || p_changes::text || ' times at once; shown as one';

comment on function evaluator._flapping_message(text, text, integer) is
  'Return the message of an event flapping, for example "heat of boiler-1 opened and closed the alert 40 times at once; '
  'shown as one"; null without a number.';
