-- record_send writes the columns one after the other, each with its type and its length (-1: null): numbers and times as
-- big-endian binary, text as UTF-8, jsonb as one version byte and its text, whose keys are sorted by length and bytes.
-- The only setting that matters is the client's encoding, which the hashing functions check. A later version gets
-- another tag. Without SET, so that it can be inlined into the scan: a million hashes then cost no function call.
create function audit._leaf_hash(p_row public.audit_log) returns bytea
language sql stable parallel safe
return sha256(
  '\x00'::bytea || 'pulse.audit.row.v1'::bytea || record_send(row(
    p_row.tenant_id, p_row.timestamp, p_row.event_id, p_row.recorded_at, p_row.event_type, p_row.category, p_row.severity,
    p_row.entity_type, p_row.entity_id, p_row.entity_name, p_row.action, p_row.message, p_row.details,
    p_row.source_service, p_row.actor_type, p_row.actor_id, p_row.actor_name, p_row.ip_address, p_row.trace_id,
    p_row.duration_ms, p_row.xid
  ))
);

comment on function audit._leaf_hash(public.audit_log) is
  'Return the RFC 6962 leaf hash of a row: SHA-256 of 0x00, ''pulse.audit.row.v1'' and the binary form of its columns.';
