create function evaluator._close(p_closures jsonb) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
set extra_float_digits = 1  -- every digit of a double
as $$
declare
  v_closed jsonb;
begin
  with closure as (
    select *
    from jsonb_to_recordset(p_closures)
      as c (tenant_id text, fingerprint text, at timestamptz, reason text, actor_type text, actor text,
        value double precision, received_at timestamptz, changes integer, message text, trace_id text)
  ), closed as (
    update public.alerts a
    set status = 'closed', closed_at = greatest(c.at, a.opened_at), close_reason = core.visible_text(c.reason)
    from closure c
    where a.tenant_id = c.tenant_id and a.fingerprint = c.fingerprint and a.status <> 'closed'
    returning a.tenant_id, a.alert_id, a.closed_at as at, c.reason, c.actor_type, c.actor, c.value, c.received_at,
      c.changes, evaluator._flapping_message(a.metric, a.device_id, c.changes) as flapping_message,
      coalesce(c.message, evaluator._last_word(a.metric, a.device_id, c.value, c.reason)) as message,
      coalesce(c.trace_id, a.trace_id) as trace_id
  ), calmed as (
    delete from ops.escalations e
    using closed c
    where e.tenant_id = c.tenant_id and e.alert_id = c.alert_id
  )
  select jsonb_agg(to_jsonb(c) order by c.at, c.alert_id) into v_closed from closed c;
  if v_closed is null then
    return 0;
  end if;
  perform evaluator._publish((
    select jsonb_agg(e.event order by c.position, e.step)
    from jsonb_array_elements(v_closed) with ordinality as c (alert, position)
    cross join lateral (
      select 1 as step, c.alert || jsonb_build_object(
        'kind', 'flapping', 'message', c.alert -> 'flapping_message', 'reason', null) as event
      where c.alert ->> 'changes' is not null
      union all
      select 2, c.alert || '{"kind": "closed", "changes": null}'
    ) e));
  return jsonb_array_length(v_closed);
end
$$;

comment on function evaluator._close(jsonb) is
  'Close those of the alerts [{tenant_id, fingerprint, at, reason, actor_type, actor, value, received_at, changes, message, '
  'trace_id}] that are not closed, never before they opened, and end their escalation. Return their number.';
