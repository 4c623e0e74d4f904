create function core.current_trace_id() returns text
language sql stable parallel safe
return nullif(current_setting('pulse.trace_id', true), '');

comment on function core.current_trace_id() is 'Return the trace of the transaction, null if unset.';
