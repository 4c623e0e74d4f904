create function delivery.redrive(p_job_id bigint)
returns void
language plpgsql
volatile
security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_job public.notification_jobs;
  v_enabled boolean;
  v_later bigint[];
begin
  -- The channel is locked first, as in delivery.claim, so that no later notification is claimed while this one is put back.
  select n.enabled into v_enabled
  from public.notification_jobs j
  join public.notification_channels n on n.tenant_id = j.tenant_id and n.channel_id = j.channel_id
  where j.tenant_id = v_tenant_id and j.job_id = p_job_id
  for no key update of n;
  select j.*
  into v_job
  from public.notification_jobs j
  where j.tenant_id = v_tenant_id and j.job_id = p_job_id
  for update;
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no notification job %s', p_job_id);
  end if;
  if v_job.state <> 'dead' then
    raise exception using errcode = 'PU409', message = format('notification job %s is %s, not dead', p_job_id, v_job.state);
  end if;
  if delivery._call_off_reason(v_tenant_id, v_job.alert_id, v_job.channel_id, v_job.kind) is not null then
    raise exception using
      errcode = 'PU409',
      message = case v_job.kind
        when 'escalated' then format('alert %s is no longer open, so its escalation would be called off again', v_job.alert_id)
        else format('the channel never received the beginning of alert %s: put that back in the queue, and job %s comes along',
          v_job.alert_id, p_job_id)
      end;
  end if;
  -- An opening after its end would raise an incident that nothing closes. An end after the next opening would hide an incident.
  if exists (
    select
    from public.notification_jobs j
    where j.tenant_id = v_tenant_id and j.subject = v_job.subject and j.channel_id = v_job.channel_id
      and j.job_id > p_job_id and j.state in ('leased', 'delivered')
  ) then
    raise exception using
      errcode = 'PU409',
      message = format('a later notification about %s went to this channel already', v_job.subject);
  end if;

  if v_enabled is not true then
    raise exception using
      errcode = 'PU409',
      message = format('channel %s is %s', v_job.channel_id,
        case when v_enabled is null then 'deleted' else 'disabled: enable it first' end);
  end if;

  -- A beginning brings back the jobs that were given up after it, because a raised incident must be closed.
  -- The idempotency key stays, so that a receiver that got the notification after all can drop it.
  with redriven as (
    update public.notification_jobs j
    set
      state = 'pending',
      run_at = core.now(),
      attempts = 0,
      finished_at = null,
      dead_reason = null,
      redriven_at = core.now()
    where j.tenant_id = v_tenant_id and j.alert_id = v_job.alert_id and j.channel_id = v_job.channel_id
      and j.state = 'dead'
      and (
        j.job_id = p_job_id
        or (v_job.kind in ('opened', 'escalated', 'updated') and j.job_id > p_job_id and j.kind in ('acknowledged', 'closed'))
      )
    returning j.job_id
  )
  select array_agg(r.job_id order by r.job_id) into v_later
  from redriven r
  where r.job_id <> p_job_id;
  -- The receiver may still be limiting, which one probe shows.
  update delivery.lanes p
  set paused_until = least(p.paused_until, core.now()), lifted_at = clock_timestamp()
  where p.tenant_id = v_tenant_id and p.channel_id = v_job.channel_id;
  perform audit.write(array[
    audit.event(
      p_tenant_id => v_tenant_id,
      p_event_type => 'delivery.redriven',
      p_entity_type => 'job',
      p_entity_id => p_job_id::text,
      p_message => format('%s notification of alert %s was put back in the queue', v_job.kind, v_job.alert_id),
      p_details => jsonb_strip_nulls(jsonb_build_object(
        'alert_id', v_job.alert_id, 'event_id', v_job.event_id, 'channel_id', v_job.channel_id, 'kind', v_job.kind,
        'last_error', v_job.last_error, 'with_later_jobs', v_later
      )),
      -- The act is traced to the request that asked for it, when there is one.
      p_trace_id => coalesce(core.current_trace_id(), v_job.trace_id)
    )
  ]);
  perform core.notify('pulse_delivery');
end
$$;

comment on function delivery.redrive(bigint) is
  'Put a dead job of the current tenant back in the queue with all its attempts. A beginning brings back the dead '
  'acknowledgement and end of its alert. A paused channel may send a probe. Raise PU404 for an unknown job, PU409 if it is not '
  'dead, would be called off again, has a disabled or deleted channel, or a later notification of its subject went to the '
  'channel already.';
