create function core.current_span_id() returns text
language sql stable parallel safe
return substring(current_setting('pulse.span_id', true) from '^[0-9a-f]{16}$');

comment on function core.current_span_id() is 'Return the span of the transaction''s request, null if unset.';
