create function evaluator._open(p_openings jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_openings constant jsonb := evaluator._admit(p_openings);
  v_opened jsonb;
begin
  with opening as (
    select *
    from rows from (jsonb_to_recordset(v_openings)
      as (tenant_id text, fingerprint text, rule_id bigint, rule_name text, device_id text, device_name text, metric text,
        severity text, message text, value double precision, at timestamptz, received_at timestamptz, closed_at timestamptz,
        policy_id bigint, trace_id text), jsonb_array_elements(v_openings)) with ordinality
      as o (tenant_id, fingerprint, rule_id, rule_name, device_id, device_name, metric, severity, message, value, at,
        received_at, closed_at, policy_id, trace_id, opening, ordinality)
  ), stored as (
    insert into public.alerts (tenant_id, fingerprint, rule_id, rule_name, device_id, device_name, metric, severity,
      message, value, opened_at, status, closed_at, close_reason, silenced_until, trace_id)
    -- Names that are older than the API's checks, or were written in psql, may hold control characters.
    select o.tenant_id, o.fingerprint, o.rule_id, core.visible_text(o.rule_name), o.device_id,
      core.visible_text(o.device_name), core.visible_text(o.metric), o.severity, core.visible_text(o.message), o.value, o.at,
      case when o.closed_at is null then 'open' else 'closed' end, o.closed_at,
      case when o.closed_at is not null then 'resolved' end,
      (
        select s.silenced_until
        from evaluator.silences s
        where s.tenant_id = o.tenant_id and s.fingerprint = o.fingerprint and s.silenced_until > core.now()
      ),
      o.trace_id
    from opening o
    order by o.ordinality
    on conflict (tenant_id, fingerprint) where status <> 'closed' do nothing
    returning tenant_id, alert_id, fingerprint, opened_at, closed_at
  ), inserted as (
    select s.*, row_number() over (
      partition by s.tenant_id, s.fingerprint, s.opened_at, s.closed_at order by s.alert_id) as turn
    from stored s
  ), numbered as (
    select o.*, row_number() over (
      partition by o.tenant_id, o.fingerprint, o.at, o.closed_at order by o.ordinality) as turn
    from opening o
  )
  select jsonb_agg(o.opening || jsonb_build_object('alert_id', i.alert_id)
    order by o.ordinality)
  into v_opened
  from inserted i
  -- An alert that opens several times in one pass has several rows. Times and turns distinguish them.
  join numbered o on o.tenant_id = i.tenant_id and o.fingerprint = i.fingerprint and o.at = i.opened_at
    and o.closed_at is not distinct from i.closed_at and o.turn = i.turn;
  if v_opened is null then
    return '[]';
  end if;
  perform evaluator._publish((
    select jsonb_agg(e.event order by o.position, e.step)
    from jsonb_array_elements(v_opened) with ordinality as o (alert, position)
    cross join lateral (
      select 1 as step, (o.alert - '{message,changes}'::text[]) || '{"kind": "opened"}' as event
      union all
      select 2, o.alert || jsonb_build_object('kind', 'flapping', 'message', evaluator._flapping_message(
        o.alert ->> 'metric', o.alert ->> 'device_id', (o.alert ->> 'changes')::integer))
      where o.alert ->> 'changes' is not null
      union all
      select 3, (o.alert - 'changes') || jsonb_build_object('kind', 'closed', 'at', o.alert -> 'closed_at',
        'value', o.alert -> 'close_value', 'received_at', o.alert -> 'close_received_at',
        'message', o.alert -> 'close_message', 'trace_id', coalesce(o.alert ->> 'close_trace_id', o.alert ->> 'trace_id'),
        'reason', 'resolved')
      where o.alert ->> 'closed_at' is not null
    ) e));
  perform ops._start_escalations(
      array_agg(o.tenant_id), array_agg(o.alert_id), array_agg(o.policy_id), array_agg(core.now()), array_agg(o.trace_id))
  from jsonb_to_recordset(v_opened)
    as o (tenant_id text, alert_id bigint, policy_id bigint, at timestamptz, closed_at timestamptz, trace_id text)
  where o.policy_id is not null and o.closed_at is null
  having count(*) > 0;
  return v_opened;
end
$$;

comment on function evaluator._open(jsonb) is
  'Insert alerts, with status closed if they have ended, publish their events in order, and start their escalation. Return the '
  'inserted alerts with their alert_id. A silence of the fingerprint continues. A fingerprint with an alert that is not closed '
  'gets no second one, and no alert opens above a limit of the tenant.';
