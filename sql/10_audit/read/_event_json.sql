-- JSON keeps every column exactly, because jsonb and numbers appear as Postgres prints them. So the bytes under the leaf
-- hash can be rebuilt. The caller sets the time zone to UTC. Without SET, so that it can be inlined.
create function audit._event_json(p_row public.audit_log) returns text
language sql stable parallel safe
return (
  select row_to_json(e)::text
  from (
    select
      p_row.tenant_id, p_row.timestamp, p_row.event_id, p_row.recorded_at, p_row.event_type, p_row.category, p_row.severity,
      p_row.entity_type, p_row.entity_id, p_row.entity_name, p_row.action, p_row.message, p_row.details,
      p_row.source_service, p_row.actor_type, p_row.actor_id, p_row.actor_name, p_row.ip_address, p_row.trace_id,
      p_row.duration_ms, p_row.xid
  ) e
);

comment on function audit._event_json(public.audit_log) is
  'Return the columns that audit._leaf_hash covers, in its order, as one JSON object.';
