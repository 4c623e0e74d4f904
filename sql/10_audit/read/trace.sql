-- Created before trace._spans, which plpgsql looks up at the first call.
create function audit.trace(p_trace_id text) returns table (
  tenant_id text,
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
language plpgsql volatile security definer
rows 20
set search_path = pg_catalog, pg_temp
as $$
begin
  return query
    select found.tenant_id, story.*
    from (
      select l.tenant_id
      from public.audit_log l
      where l.trace_id = p_trace_id and l.timestamp >= coalesce(core.trace_started_at(p_trace_id), '-infinity')
      union
      select r.tenant_id from public.telemetry r where r.trace_id = p_trace_id
      union
      select e.tenant_id from public.alert_events e where e.trace_id = p_trace_id
    ) found
    cross join lateral trace._spans(p_trace_id, found.tenant_id) story
    order by story.at, found.tenant_id;
end
$$;

comment on function audit.trace(text) is
  'Return everything that one trace id left behind, over all tables and tenants: select * from audit.trace(''…'');';
