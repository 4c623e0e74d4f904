-- No SET clauses, so that the planner inlines it into the one statement that settles a batch.
create function delivery._outcome_event(
  p_job public.notification_jobs,
  p_channel_name text,
  p_outcome text,
  p_next_state text,
  p_next_run_at timestamptz,
  p_status_code integer,
  p_error text,
  p_duration_ms double precision
) returns public.audit_log
language sql
stable
return audit.event(
  p_tenant_id => p_job.tenant_id,
  p_event_type => case
    when p_next_state = 'delivered' then 'delivery.delivered'
    when p_next_state = 'dead' then 'delivery.dead'
    when p_outcome = 'unknown' and p_duration_ms is null then 'delivery.lease_expired'  -- no worker reported it
    when p_outcome = 'limited' then 'delivery.limited'
    else 'delivery.retried'
  end,
  p_entity_type => 'job',
  p_entity_id => p_job.job_id::text,
  p_entity_name => p_channel_name,
  p_message => p_job.kind || ' notification of alert ' || p_job.alert_id || case
    when p_next_state = 'delivered' then ' was delivered'
    when p_next_state = 'dead' then ' was given up: ' || coalesce(p_error, p_outcome)
    when p_outcome = 'limited' then ' waits until the receiver takes more: ' || coalesce(p_error, p_outcome)
    else ' will be tried again: ' || coalesce(p_error, p_outcome)
  end,
  p_details => jsonb_build_object(
    'alert_id', p_job.alert_id, 'event_id', p_job.event_id, 'channel_id', p_job.channel_id, 'kind', p_job.kind,
    'attempt', p_job.lease_epoch, 'outcome', p_outcome, 'status_code', p_status_code, 'next_attempt_at', p_next_run_at
  ),
  p_source_service => 'delivery_worker',
  p_actor_type => 'service',
  p_actor_id => 'delivery_worker',
  p_actor_name => p_job.leased_by,
  p_trace_id => p_job.trace_id,
  p_duration_ms => p_duration_ms
);

comment on function delivery._outcome_event(
  public.notification_jobs, text, text, text, timestamptz, integer, text, double precision
) is 'Return the audit event of one attempt, from the job as it was leased.';
