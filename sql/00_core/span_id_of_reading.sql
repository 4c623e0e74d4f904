create function core.span_id_of_reading(p_trace_id text, p_tenant_id text, p_device_id text, p_metric text) returns text
language sql immutable parallel safe
-- Neither tenants nor devices have a slash in their names.
return core.span_id(p_trace_id, 'reading', p_tenant_id || '/' || p_device_id || '/' || p_metric);

comment on function core.span_id_of_reading(text, text, text, text) is
  'Span id of a trace''s readings of a device and metric.';
