create function ops._reschedule_escalations(p_tenant_id text, p_alert_ids bigint[]) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_moved integer;
begin
  update ops.escalations escalation
  set due_at = greatest(
    alert.recorded_at + escalation.delayed_by + step.after_minutes * interval '1 minute',
    -- Not in the past, so that the steps after it keep their gaps.
    core.now(),
    alert.silenced_until
  )
  from public.alerts alert
  join public.escalation_steps step on step.tenant_id = alert.tenant_id
  where alert.tenant_id = p_tenant_id
    and alert.alert_id = any(p_alert_ids)
    and escalation.tenant_id = alert.tenant_id
    and escalation.alert_id = alert.alert_id
    and step.policy_id = escalation.policy_id
    and step.step_number = escalation.step_number;
  get diagnostics v_moved = row_count;
  if v_moved > 0 then
    perform core.notify('pulse_ops');
  end if;
  return v_moved;
end
$$;

comment on function ops._reschedule_escalations(text, bigint[]) is
  'Set the waiting step of each alert to the latest of its own time, now and the end of the alert''s silence. Call it '
  'in the transaction that changes silenced_until, with the alert rows locked.';
