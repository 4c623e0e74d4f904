create function delivery._disable_gone(p_tenant_ids text[], p_job_ids bigint[]) returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
declare
  v_events public.audit_log[];
begin
  -- The table is tracked, and the worker is the actor.
  perform set_config('pulse.actor_type', 'service', true), set_config('pulse.actor_id', 'delivery_worker', true),
    set_config('pulse.reason', 'the receiver is gone', true), set_config('pulse.service', 'delivery_worker', true);
  with gone as materialized (
    select distinct on (j.tenant_id, j.channel_id) j.tenant_id, j.channel_id, j.job_id, j.last_error, j.trace_id
    from unnest(p_tenant_ids, p_job_ids) as r (tenant_id, job_id)
    cross join lateral (
      select j.*
      from public.notification_jobs j
      where j.tenant_id = r.tenant_id and j.job_id = r.job_id
      limit 1
    ) j
    where j.dead_reason = 'gone'
    order by j.tenant_id, j.channel_id, j.job_id
  ), disabled as (
    update public.notification_channels n
    set enabled = false, disabled_reason = g.last_error, updated_at = clock_timestamp()
    from gone g
    where n.tenant_id = g.tenant_id and n.channel_id = g.channel_id and n.enabled
    returning n.tenant_id, n.channel_id, n.name, g.job_id, g.last_error, g.trace_id
  )
  select array_agg(audit.event(
    p_tenant_id => d.tenant_id,
    p_event_type => 'delivery.channel_disabled',
    p_entity_type => 'channel',
    p_entity_id => d.channel_id::text,
    p_entity_name => d.name,
    p_message => format('channel %s was disabled: %s', d.channel_id, d.last_error),
    p_details => jsonb_build_object('channel_id', d.channel_id, 'job_id', d.job_id, 'reason', d.last_error),
    p_source_service => 'delivery_worker',
    p_actor_type => 'service',
    p_actor_id => 'delivery_worker',
    p_trace_id => d.trace_id
  ))
  into v_events
  from disabled d;
  if v_events is not null then
    perform audit.write(v_events);
    -- The jobs that wait for the channel are given up now, not at the next poll.
    perform core.notify('pulse_delivery');
  end if;
end
$$;

comment on function delivery._disable_gone(text[], bigint[]) is
  'Disable the channels of these jobs, whose receivers answered 410, and record it. The caller holds the channels'' locks.';
