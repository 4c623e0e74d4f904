-- Span ids are derived instead of stored, so logs, rows and exported spans agree. tracing.span_id_of in Python computes
-- the same id.
create function core.span_id(p_trace_id text, p_kind text, p_id text) returns text
language sql immutable parallel safe
return left(encode(sha256(convert_to(p_trace_id || ':' || p_kind || ':' || p_id, 'UTF8')), 'hex'), 16);

comment on function core.span_id(text, text, text) is
  'Return the span id of one node of a trace. Kinds: reading, evaluation, alert, event, suppression, job, attempt (id '
  'job:attempt) and audit.';
