create function delivery._lift_pause(p_tenant_id text, p_channel_id bigint) returns void
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
begin
  insert into delivery.lanes as p (tenant_id, channel_id, paused_until, lifted_at)
  values (p_tenant_id, p_channel_id, core.now(), clock_timestamp())
  on conflict (tenant_id, channel_id) do update set
    paused_until = least(p.paused_until, core.now()),
    limits = 0,
    hangs = 0,
    deliveries = 0,
    lifted_at = excluded.lifted_at;
  with waiting as materialized (
    select j.ctid as place
    from public.notification_jobs j
    where j.tenant_id = p_tenant_id and j.channel_id = p_channel_id and j.state = 'pending' and j.run_at > core.now()
    order by j.job_id
    for update
  )
  update public.notification_jobs j
  set run_at = core.now()
  from waiting w
  where j.ctid = w.place;
  perform core.notify('pulse_delivery');
end
$$;

comment on function delivery._lift_pause(text, bigint) is
  'End the pause of a channel, make its waiting jobs due and wake the workers. The caller holds the channel''s lock.';
