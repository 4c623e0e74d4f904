-- A plain expression without SET, so that the planner inlines it.
create function evaluator._transition(
  p_kind text,
  p_tenant_id text,
  p_rule_id bigint,
  p_device_id text,
  p_n integer,
  p_at timestamptz,
  p_value double precision,
  p_received_at timestamptz,
  p_trace_id text,
  p_changes integer default null,
  p_closed_at timestamptz default null,
  p_close_value double precision default null,
  p_close_received_at timestamptz default null,
  p_close_trace_id text default null
) returns evaluator.transition
language sql immutable parallel safe
return row(
  p_kind, p_tenant_id, p_rule_id, p_device_id, p_n, p_at, p_value, p_received_at, p_trace_id, p_changes,
  p_closed_at, p_close_value, p_close_received_at, p_close_trace_id
)::evaluator.transition;

comment on function evaluator._transition is 'Make a transition of the alert of a rule and device.';
