-- The lock on the tenant's row decides which of two transactions writes the event. The other one skips it, because the
-- holder, or the next refusal of the window, writes it.
create function ops._refuse(p_tenant_id text, p_limit_name text, p_value bigint, p_shard smallint, p_refused bigint) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_window constant timestamptz := date_bin('10 minutes', core.now(), '2000-01-01 00:00:00Z');
begin
  insert into ops.limit_refusals as r (tenant_id, limit_name, shard, window_start, window_refused, refused)
  values (p_tenant_id, p_limit_name, p_shard, v_window, p_refused, p_refused)
  on conflict (tenant_id, limit_name, shard) do update
  set window_refused = excluded.window_refused + case when r.window_start = excluded.window_start then r.window_refused else 0 end,
    window_start = excluded.window_start, refused = r.refused + excluded.refused;
  perform from public.tenants t where t.tenant_id = p_tenant_id for no key update skip locked;
  if not found then
    return;
  end if;
  if exists (
    select from ops.limit_refusals r
    where r.tenant_id = p_tenant_id and r.limit_name = p_limit_name and r.audited_at >= v_window
  ) then
    return;
  end if;
  update ops.limit_refusals r
  set audited_at = core.now()
  where r.tenant_id = p_tenant_id and r.limit_name = p_limit_name and r.shard = p_shard;
  perform audit.write(array[audit.event(
    p_tenant_id => p_tenant_id,
    p_event_type => 'system.limit_reached',
    p_entity_type => 'limit',
    p_entity_id => p_limit_name,
    p_message => format('limit %s%s reached', p_limit_name, ' of ' || p_value),
    p_details => jsonb_strip_nulls(jsonb_build_object(
      'limit', p_limit_name, 'value', p_value, 'window_start', v_window,
      'refused', p_refused,
      'refused_before', (
        select sum(r.refused) - p_refused from ops.limit_refusals r
        where r.tenant_id = p_tenant_id and r.limit_name = p_limit_name))),
    p_source_service => coalesce(core.current_service(), 'evaluator_iot'),
    p_actor_type => 'service',
    p_actor_id => coalesce(core.current_service(), 'evaluator_iot'))]);
end
$$;

comment on function ops._refuse(text, text, bigint, smallint, bigint) is
  'Count refusals of a limit, and write one audit event for each tenant and limit in ten minutes.';
