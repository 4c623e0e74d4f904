create function api.trace_timeline(p_trace_id text, p_most integer default null) returns table (
  span_id text,
  parent_span_id text,
  kind text,
  at timestamptz,
  duration_ms double precision,
  service text,
  entity_type text,
  entity_id text,
  what text,
  details jsonb
)
language sql volatile security definer
rows 20
set search_path = pg_catalog, pg_temp
as $$
  select * from trace._spans(p_trace_id, core.current_tenant(), p_most)
$$;

comment on function api.trace_timeline(text, integer) is
  'Return all rows that a trace id left behind in the tenant, one line each, in order of time: request, reading, '
  'evaluation, alert, event, suppression, job, attempt, audit. parent_span_id is the span_id of another line, null for '
  'a root. p_most bounds the rows of each kind that are read; null: all.';
