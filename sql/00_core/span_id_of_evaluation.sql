create function core.span_id_of_evaluation(
  p_trace_id text, p_tenant_id text, p_device_id text, p_metric text, p_decided_at timestamptz
) returns text
language sql immutable parallel safe
return core.span_id(
  p_trace_id, 'evaluation',
  p_tenant_id || '/' || p_device_id || '/' || p_metric || '/' || (1000000 * extract(epoch from p_decided_at))::bigint
);

comment on function core.span_id_of_evaluation(text, text, text, text, timestamptz) is
  'Return the span id of one pass''s decisions about a metric of a device.';
