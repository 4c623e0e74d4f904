create function audit.count_events(
  p_snapshot text,
  p_from timestamptz default null,
  p_to timestamptz default null,
  p_tenant_id text default null,
  p_event_id uuid default null
) returns bigint
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- Each filter has its own plan.
set plan_cache_mode = force_custom_plan
as $$
begin
  perform audit._keep_in_place();
  return (
    select count(*)
    from public.audit_log l
    where l.timestamp >= coalesce(p_from, '-infinity')
      and l.timestamp < coalesce(p_to, 'infinity')
      and (p_tenant_id is null or l.tenant_id = p_tenant_id)
      and (p_event_id is null or l.event_id = p_event_id)
      and pg_visible_in_snapshot(l.xid, p_snapshot::pg_snapshot)
  );
end
$$;

comment on function audit.count_events(text, timestamptz, timestamptz, text, uuid) is
  'Count the events that match the filter and whose transaction the snapshot sees.';
