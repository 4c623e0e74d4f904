-- Uses only the narrowest index that the filter names, so that it reads no more rows than it returns.
create function audit._indexed_rows(p_tenant_id text, p_filter jsonb, p_limit integer) returns setof public.audit_log
language sql stable parallel safe rows 10000
begin atomic
  select l.*
  from public.audit_log l
  where (p_tenant_id is null or l.tenant_id = p_tenant_id)
    and (p_filter ->> 'since' is null or l.timestamp >= (p_filter ->> 'since')::timestamptz)
    and (p_filter ->> 'until' is null or l.timestamp < (p_filter ->> 'until')::timestamptz)
    and case
      when p_filter ->> 'trace_id' is not null then l.trace_id = p_filter ->> 'trace_id'
      when p_tenant_id is null then true
      when p_filter ->> 'entity_type' is not null and p_filter ->> 'entity_id' is not null
        then l.entity_type = p_filter ->> 'entity_type' and l.entity_id = p_filter ->> 'entity_id'
      when p_filter ->> 'event_type' is not null then l.event_type = p_filter ->> 'event_type'
      else true
    end
  limit p_limit;
end;

comment on function audit._indexed_rows(text, jsonb, integer) is
  'Return at most p_limit rows. If they are fewer, all rows that match the filter are among them. A null tenant means '
  'all tenants.';
