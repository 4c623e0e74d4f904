create function ops._start_escalations(
  p_tenant_ids text[],
  p_alert_ids bigint[],
  p_policy_ids bigint[],
  p_opened_at timestamptz[],
  p_trace_ids text[]
) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_started integer;
  v_due boolean;
begin
  with started as (
    insert into ops.escalations (tenant_id, alert_id, policy_id, step_number, due_at, trace_id)
    select
      opened.tenant_id,
      opened.alert_id,
      opened.policy_id,
      first_step.step_number,
      opened.opened_at + first_step.after_minutes * interval '1 minute',
      opened.trace_id
    from unnest(p_tenant_ids, p_alert_ids, p_policy_ids, p_opened_at, p_trace_ids)
      as opened (tenant_id, alert_id, policy_id, opened_at, trace_id)
    cross join lateral (
      select s.step_number, s.after_minutes
      from public.escalation_steps s
      where s.tenant_id = opened.tenant_id
        and s.policy_id = opened.policy_id
      order by s.step_number
      limit 1
    ) first_step
    on conflict (tenant_id, alert_id) do nothing
    returning due_at
  )
  select count(*), coalesce(bool_or(started.due_at <= core.now()), false)
  into v_started, v_due
  from started;
  -- Wake the ops worker for a step after 0 minutes.
  if v_due then
    perform core.notify('pulse_ops');
  end if;
  return v_started;
end
$$;

comment on function ops._start_escalations(text[], bigint[], bigint[], timestamptz[], text[]) is
  'Schedule the first step for alerts that open in this transaction, element by element. A null policy or one without '
  'steps schedules nothing. opened_at is the recorded time, not the device''s. Return the number of rows inserted.';
