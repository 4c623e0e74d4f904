create function ingest.lock_resource(p_kind text, p_id text) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
begin
  -- The order is that of the functions that change the resource: lanes before rows, a channel before its jobs.
  case p_kind
    when 'device' then
      perform evaluator._lock_lanes(v_tenant_id, array[core.shard_of(v_tenant_id, p_id)]);
      perform from public.devices d where d.tenant_id = v_tenant_id and d.device_id = p_id for no key update;
    when 'rule' then
      perform evaluator._lock_lanes(v_tenant_id);
      perform from public.alert_rules r where r.tenant_id = v_tenant_id and r.rule_id = p_id::bigint for no key update;
    when 'alert' then
      perform evaluator._lock_lanes(v_tenant_id, array(
        select core.shard_of(a.tenant_id, a.device_id)
        from public.alerts a
        where a.tenant_id = v_tenant_id and a.alert_id = p_id::bigint and a.device_id is not null));
      perform from public.alerts a where a.tenant_id = v_tenant_id and a.alert_id = p_id::bigint for no key update;
    when 'route' then
      perform from public.notification_routes r
      where r.tenant_id = v_tenant_id and r.route_id = p_id::bigint
      for no key update;
    when 'channel' then
      perform from public.notification_channels c
      where c.tenant_id = v_tenant_id and c.channel_id = p_id::bigint
      for no key update;
    when 'escalation policy' then
      -- An alert that opens starts its escalation with the policy's steps.
      perform evaluator._lock_lanes(v_tenant_id);
      perform from public.escalation_policies p
      where p.tenant_id = v_tenant_id and p.policy_id = p_id::bigint
      for no key update;
    when 'delivery' then
      perform from public.notification_jobs j
      join public.notification_channels c on c.tenant_id = j.tenant_id and c.channel_id = j.channel_id
      where j.tenant_id = v_tenant_id and j.job_id = p_id::bigint
      for no key update of c;
      perform from public.notification_jobs j where j.tenant_id = v_tenant_id and j.job_id = p_id::bigint for update;
    when 'API key' then
      perform from public.api_keys k where k.tenant_id = v_tenant_id and k.key_id = p_id::bigint for no key update;
    when 'revocation' then
      perform from public.revocations r
      where r.tenant_id = v_tenant_id and r.revocation_id = p_id::bigint
      for no key update;
  end case;
end
$$;

comment on function ingest.lock_resource(text, text) is
  'Lock a device, rule, alert, route, channel, escalation policy, delivery, API key or revocation of the tenant until the '
  'transaction ends, so that a precondition still holds when it changes. Do nothing for an unknown resource.';
