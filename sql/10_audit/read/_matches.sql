-- Without SET, so that it can be inlined: conditions that the filter does not name fall away, and the others can use an
-- index.
create function audit._matches(p_row public.audit_log, p_filter jsonb) returns boolean
language sql stable parallel safe
return
  (p_filter ->> 'since' is null or p_row.timestamp >= (p_filter ->> 'since')::timestamptz)
  and (p_filter ->> 'until' is null or p_row.timestamp < (p_filter ->> 'until')::timestamptz)
  and (p_filter ->> 'event_type' is null or p_row.event_type = p_filter ->> 'event_type')
  and (p_filter ->> 'category' is null or p_row.category = p_filter ->> 'category')
  and (p_filter ->> 'severity' is null or p_row.severity = p_filter ->> 'severity')
  and (p_filter ->> 'entity_type' is null or p_row.entity_type = p_filter ->> 'entity_type')
  and (p_filter ->> 'entity_id' is null or p_row.entity_id = p_filter ->> 'entity_id')
  and (p_filter ->> 'actor_type' is null or p_row.actor_type = p_filter ->> 'actor_type')
  and (p_filter ->> 'actor_id' is null or p_row.actor_id = p_filter ->> 'actor_id')
  and (p_filter ->> 'ip_address' is null or p_row.ip_address = (p_filter ->> 'ip_address')::inet)
  and (p_filter ->> 'trace_id' is null or p_row.trace_id = p_filter ->> 'trace_id');

comment on function audit._matches(public.audit_log, jsonb) is
  'Return whether a row has every value that the filter names: columns of audit_log, since (inclusive) and until '
  '(exclusive).';
