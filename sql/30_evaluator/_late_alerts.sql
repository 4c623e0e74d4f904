create function evaluator._late_alerts(p_late jsonb) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reading record;
  v_pair text;
  v_ended timestamptz;
  v_alerts jsonb[] := '{}';
begin
  for v_reading in
    select l.*, format('rule:%s:%s', l.rule_id, l.device_id) as fingerprint
    from rows from (jsonb_to_recordset(p_late) as (tenant_id text, rule_id bigint, device_id text, metric text,
      "time" timestamptz, value double precision, received_at timestamptz, trace_id text, newest timestamptz,
      ended timestamptz)) with ordinality as l
    order by l.ordinality
  loop
    if v_pair is distinct from v_reading.tenant_id || '/' || v_reading.fingerprint then
      v_pair := v_reading.tenant_id || '/' || v_reading.fingerprint;
      select max(a.closed_at) into v_ended
      from public.alerts a
      where a.tenant_id = v_reading.tenant_id and a.fingerprint = v_reading.fingerprint and a.status = 'closed';
    end if;
    v_ended := greatest(v_ended, v_reading.ended);
    if v_ended is null or v_reading.time > v_ended then
      v_ended := v_reading.newest;
      v_alerts := v_alerts || jsonb_build_object('kind', 'late', 'tenant_id', v_reading.tenant_id,
        'rule_id', v_reading.rule_id, 'device_id', v_reading.device_id, 'at', v_reading.time, 'value', v_reading.value,
        'received_at', v_reading.received_at, 'trace_id', v_reading.trace_id, 'closed_at', v_reading.newest,
        'close_value', (
          select t.value from public.telemetry t
          where t.tenant_id = v_reading.tenant_id and t.device_id = v_reading.device_id and t.metric = v_reading.metric
            and t.timestamp = v_reading.newest));
    end if;
  end loop;
  -- As with other changes: too many of one pair in one pass are one alert.
  return (
    select coalesce(jsonb_agg(case when n.alerts * 2 <= evaluator._most_changes() then n.alert
      else n.alert || jsonb_build_object('changes', n.alerts * 2, 'closed_at', n.last -> 'closed_at',
        'close_value', n.last -> 'close_value', 'close_received_at', n.last -> 'received_at',
        'close_trace_id', n.last -> 'trace_id') end order by n.position), '[]')
    from (
      select l.alert, l.position, count(*) over pair as alerts, row_number() over (pair order by l.position) as turn,
        last_value(l.alert) over (pair order by l.position rows between unbounded preceding and unbounded following) as last
      from unnest(v_alerts) with ordinality as l (alert, position)
      window pair as (partition by l.alert ->> 'tenant_id', l.alert ->> 'rule_id', l.alert ->> 'device_id')
    ) n
    where n.turn = 1 or n.alerts * 2 <= evaluator._most_changes());
end
$$;

comment on function evaluator._late_alerts(jsonb) is
  'Return the late breaches that become an alert, which ends at the newest reading: those after the end of every alert of '
  'their rule and device. A series that is sent late is therefore reported once, however it is cut into requests.';
