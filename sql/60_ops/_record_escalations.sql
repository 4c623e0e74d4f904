create function ops._record_escalations(p_decisions ops._escalation_decisions[]) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_count integer;
begin
  insert into public.alert_events
    (tenant_id, alert_id, kind, occurred_at, actor, channel_id, step_number, policy_id, trace_id)
  select
    decision.tenant_id,
    decision.alert_id,
    'escalated',
    core.now(),
    'ops_worker',
    decision.channel_id,
    decision.step_number,
    decision.policy_id,
    decision.trace_id
  from unnest(p_decisions) decision
  where decision.outcome = 'escalated';
  get diagnostics v_count = row_count;
  if v_count = 0 then
    return;
  end if;

  perform audit.write(array(
    select audit.event(
      p_tenant_id => decision.tenant_id,
      p_event_type => 'alert.escalated',
      p_entity_type => 'alert',
      p_entity_id => decision.alert_id::text,
      p_entity_name => decision.rule_name,
      p_message => format(
        'Alert %s is still open: escalation step %s notifies channel %s.',
        decision.alert_id, decision.step_number, decision.channel_name
      ),
      p_details => jsonb_build_object(
        'policy_id', decision.policy_id,
        'step_number', decision.step_number,
        'channel_id', decision.channel_id,
        'due_at', decision.due_at,
        'next_step_number', decision.next_step_number,
        'next_due_at', decision.next_due_at
      ),
      p_source_service => 'ops_worker',
      p_actor_type => 'service',
      p_actor_id => 'ops_worker',
      p_trace_id => decision.trace_id
    )
    from unnest(p_decisions) decision
    where decision.outcome = 'escalated'
  ));
  perform core.notify('pulse_dispatcher');
end
$$;

comment on function ops._record_escalations(ops._escalation_decisions[]) is
  'Write the alert event and the audit event of each decision that escalates, and wake the dispatcher once.';
