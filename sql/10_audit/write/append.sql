-- Repairs a write of the audit writer whose outcome is unknown by sending the same rows again. Rows that exist stay.
create function audit.append(p_rows jsonb)
returns integer
language sql
volatile
security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with appended as (
    insert into public.audit_log (
      tenant_id, timestamp, event_id, event_type, category, severity, entity_type, entity_id, entity_name, action, message,
      details, source_service, actor_type, actor_id, actor_name, ip_address, trace_id, duration_ms
    )
    select
      r.tenant_id, r.timestamp, r.event_id, r.event_type, r.category, r.severity, r.entity_type, r.entity_id, r.entity_name,
      r.action, r.message, r.details, audit._checked_source(r.source_service, r.category, r.action), r.actor_type,
      r.actor_id, r.actor_name, r.ip_address, r.trace_id, r.duration_ms
    from jsonb_populate_recordset(null::public.audit_log, p_rows) as r
    on conflict do nothing
    returning 1
  )
  select count(*)::integer from appended;
end;

comment on function audit.append(jsonb) is
  'Store complete audit rows (an array of objects, keys as the columns) and return the number of new ones.';
