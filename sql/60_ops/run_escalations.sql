create function ops.run_escalations(p_limit integer)
returns table (tenant_id text, alert_id bigint, outcome text, step_number integer, channel_id bigint, trace_id text)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_ids text[];
  v_alert_ids bigint[];
  v_decisions ops._escalation_decisions[];
begin
  -- All other functions lock the alert first and its escalation second. The order does not matter here, because nothing
  -- waits: a locked pair is left to the next pass. With both locked, the alert cannot change until commit.
  select array_agg(due.tenant_id), array_agg(due.alert_id)
  into v_tenant_ids, v_alert_ids
  from ops._claim_escalations(p_limit) due;

  -- A separate statement, so that its snapshot sees all commits up to the locks.
  select array_agg(decision order by decision.due_at, decision.alert_id)
  into v_decisions
  from unnest(v_tenant_ids, v_alert_ids) as due (tenant_id, alert_id)
  join ops._escalation_decisions decision
    on decision.tenant_id = due.tenant_id
    and decision.alert_id = due.alert_id;

  perform ops._record_escalations(v_decisions);

  update ops.escalations escalation
  set
    step_number = decision.next_step_number,
    due_at = decision.next_due_at,
    delayed_by = case decision.outcome when 'escalated' then decision.delayed_by else escalation.delayed_by end
  from unnest(v_decisions) decision
  where escalation.tenant_id = decision.tenant_id
    and escalation.alert_id = decision.alert_id
    and decision.next_step_number is not null;

  delete from ops.escalations escalation
  using unnest(v_decisions) decision
  where escalation.tenant_id = decision.tenant_id
    and escalation.alert_id = decision.alert_id
    and decision.next_step_number is null;

  return query
    select d.tenant_id, d.alert_id, d.outcome, d.step_number, d.channel_id, d.trace_id
    from unnest(v_decisions) d;
end
$$;

comment on function ops.run_escalations(integer) is
  'Run one pass over at most p_limit due escalations, the same share of each tenant: notify the step''s channel if the '
  'alert is open and not silenced, then schedule the next step. Return a row for each escalation handled, notified or '
  'not. No row means that nothing is due.';
