create function audit.find_event(p_event_id uuid, p_tenant_id text default null)
returns table (tenant_id text, happened_at timestamptz, block_no bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  -- A UUIDv7 begins with the time of its creation in milliseconds, which is close to the event's own time.
  v_made_at timestamptz := to_timestamp(
    ('x' || left(replace(p_event_id::text, '-', ''), 12))::bit(48)::bigint / 1000.0);
  v_near boolean;
begin
  perform audit._keep_in_place();
  foreach v_near in array array[true, false] loop
    return query
      select l.tenant_id, l.timestamp, (
        select b.block_no
        from audit.blocks b
        where b.segment = audit._segment(l.timestamp)
          and b.snapshot_xmax > l.xid
          and pg_visible_in_snapshot(l.xid, b.snapshot)
        order by b.snapshot_xmax, b.block_no
        limit 1
      )
      from public.audit_log l
      where l.event_id = p_event_id
        and (p_tenant_id is null or l.tenant_id = p_tenant_id)
        and l.timestamp >= case when v_near then v_made_at - interval '10 minutes' else '-infinity' end
        and l.timestamp <= case when v_near then v_made_at + interval '10 minutes' else 'infinity' end
      order by 2, 1;
    exit when found;
  end loop;
end
$$;

comment on function audit.find_event(uuid, text) is
  'Find an event: its tenant, its time and its block, null while it is not sealed. Returns no row if there is none.';
