create function core.span_id_of_reading(p_trace_id text, p_tenant_id text, p_device_id text, p_metric text) returns text
language sql immutable parallel safe
-- Names of tenants and devices have no slash.
return core.span_id(p_trace_id, 'reading', p_tenant_id || '/' || p_device_id || '/' || p_metric);

comment on function core.span_id_of_reading(text, text, text, text) is
  'Return the span id of a trace''s readings of one device and metric.';
