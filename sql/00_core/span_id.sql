-- Derived, not stored: the same in every log line, row and exported span. tracing.span_id_of is its twin in Python.
create function core.span_id(p_trace_id text, p_kind text, p_id text) returns text
language sql immutable parallel safe
return left(encode(sha256(convert_to(p_trace_id || ':' || p_kind || ':' || p_id, 'UTF8')), 'hex'), 16);

comment on function core.span_id(text, text, text) is
  'Span id of a row of a trace: reading, evaluation, alert, event, suppression, job, attempt (its id is job:attempt) or audit.';
