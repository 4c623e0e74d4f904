create function evaluator._late_alerts(p_late jsonb) returns evaluator.transition[]
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_reading record;
  v_pair text;
  v_ended timestamptz;
  v_alerts evaluator.transition[] := '{}';
begin
  if p_late is null then
    return v_alerts;
  end if;
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
      v_alerts := v_alerts || evaluator._transition('late', v_reading.tenant_id, v_reading.rule_id, v_reading.device_id,
        2147483647, v_reading.time, v_reading.value, v_reading.received_at, v_reading.trace_id,
        p_closed_at => v_reading.newest,
        p_close_value => (
          select t.value from public.telemetry t
          where t.tenant_id = v_reading.tenant_id and t.device_id = v_reading.device_id and t.metric = v_reading.metric
            and t.timestamp = v_reading.newest),
        p_close_received_at => v_reading.received_at, p_close_trace_id => v_reading.trace_id);
    end if;
  end loop;
  -- As with other transitions, too many of one pair in one pass become one alert.
  return coalesce((
    select array_agg(case
      when n.alerts * 2 <= evaluator._most_changes() then v_alerts[n.place]
      else evaluator._transition('late', n.tenant_id, n.rule_id, n.device_id, n.n, n.at, n.value, n.received_at, n.trace_id,
        (n.alerts * 2)::integer, (v_alerts[n.last]).closed_at, (v_alerts[n.last]).close_value,
        (v_alerts[n.last]).close_received_at, (v_alerts[n.last]).close_trace_id)
      end order by n.place)
    from (
      select l.*, l.ordinality as place, count(*) over pair as alerts, min(l.ordinality) over pair as first,
        max(l.ordinality) over pair as last
      from unnest(v_alerts) with ordinality as l
      window pair as (partition by l.tenant_id, l.rule_id, l.device_id)
    ) n
    where n.place = n.first or n.alerts * 2 <= evaluator._most_changes()), '{}');
end
$$;

comment on function evaluator._late_alerts(jsonb) is
  'Return an alert for each late breach after the end of every alert of its rule and device. It closes at the newest reading, '
  'so a series that is sent late is reported once, regardless of how it is divided into requests.';
