create function ingest.record_readings(
  p_tenant_id text,
  p_device_ids text[],
  p_metrics text[],
  p_timestamps timestamptz[],
  p_values double precision[],
  p_trace_id text,
  p_skip_new_series boolean default false
) returns table (accepted integer, duplicates integer, overwritten integer, refused jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
-- The planner does not know how long the arrays are, and a loop would be quadratic. Devices are found by the array.
set enable_nestloop = off
as $$
#variable_conflict use_column
declare
  c_accepted constant integer := 0;
  c_duplicate constant integer := 1;
  c_overwritten constant integer := 2;
  v_now timestamptz := core.now();
  v_first timestamptz;
  v_last timestamptz;
  v_new bigint;
  -- True for each position whose reading is taken; null if all are.
  v_taken constant boolean[] := case when p_skip_new_series then ingest._taken_by_series(p_tenant_id, p_device_ids, p_metrics) end;
begin
  perform core.name_request(p_trace_id);
  with reading as materialized (
    select r.device_id, r.metric, r.timestamp, r.value, r.position, d.enabled, d.first_reading_id
    from unnest(p_device_ids, p_metrics, p_timestamps, p_values) with ordinality
      as r (device_id, metric, timestamp, value, position)
    left join public.devices d on d.tenant_id = p_tenant_id and d.device_id = any (p_device_ids) and d.device_id = r.device_id
  ), ordered as materialized (
    select r.*, nextval('public.telemetry_reading_id_seq') as reading_id,
      lag(r.value) over instant as before, lead(r.value) over instant as after
    from reading r
    where r.enabled and (v_taken is null or v_taken[r.position])
    window instant as (partition by r.device_id, r.metric, r.timestamp order by r.position)
  ), stored as (
    -- The key order makes two batches with the same readings wait for each other instead of deadlocking.
    insert into public.telemetry as t (tenant_id, timestamp, device_id, metric, value, reading_id, received_at, trace_id)
    select p_tenant_id, o.timestamp, o.device_id, o.metric, o.value, o.reading_id, v_now, p_trace_id
    from ordered o
    where o.after is null
    order by o.device_id, o.metric, o.timestamp
    on conflict (tenant_id, device_id, metric, timestamp) do update
    set value = excluded.value, reading_id = excluded.reading_id, received_at = excluded.received_at,
      trace_id = excluded.trace_id,
      overwrites = case
        when ingest._is_inherited(t.tenant_id, t.device_id, t.reading_id) then 0
        else least(t.overwrites, 32766) + 1
      end
    where t.value <> excluded.value or ingest._is_inherited(t.tenant_id, t.device_id, t.reading_id)
    returning t.reading_id, t.overwrites
  ), judged as materialized (
    select o.device_id, o.metric, o.timestamp, o.value, o.position, o.reading_id,
      case
        when o.before is not null then case when o.value = o.before then c_duplicate else c_overwritten end
        when o.after is not null then  -- the first of several values for one instant
          case when old.value is null then c_accepted when old.value = o.value then c_duplicate else c_overwritten end
        when s.reading_id is null then c_duplicate
        when s.overwrites = 0 then c_accepted
        else c_overwritten
      end as outcome
    from ordered o
    left join stored s on s.reading_id = o.reading_id
    left join lateral (
      select t.value from public.telemetry t
      where o.before is null and o.after is not null and t.tenant_id = p_tenant_id and t.device_id = o.device_id
        and t.metric = o.metric and t.timestamp = o.timestamp and t.reading_id >= o.first_reading_id
      limit 1
    ) old on true
  ), latest as (
    -- The row lock orders the requests about one device and metric by their commits.
    insert into public.device_state as d (tenant_id, device_id, metric, timestamp, value, received_at, trace_id)
    select distinct on (j.device_id, j.metric)
      p_tenant_id, j.device_id, j.metric, j.timestamp, j.value, v_now, p_trace_id
    from judged j
    where j.outcome <> c_duplicate
    order by j.device_id, j.metric, least(j.timestamp, v_now) desc, j.position desc
    on conflict (tenant_id, device_id, metric) do update
    set newest_before = least(d.timestamp, d.received_at),
      timestamp = case when least(excluded.timestamp, v_now) >= least(d.timestamp, d.received_at)
        then excluded.timestamp else d.timestamp end,
      value = case when least(excluded.timestamp, v_now) >= least(d.timestamp, d.received_at)
        then excluded.value else d.value end,
      received_at = case when least(excluded.timestamp, v_now) >= least(d.timestamp, d.received_at)
        then excluded.received_at else d.received_at end,
      trace_id = case when least(excluded.timestamp, v_now) >= least(d.timestamp, d.received_at)
        then excluded.trace_id else d.trace_id end
    returning d.ctid as series, d.device_id, d.metric, d.newest_before
  ), queued as (
    -- The join to latest draws the numbers of arrival under its row locks.
    insert into evaluator.inbox
      (shard, reading_id, tenant_id, device_id, metric, timestamp, value, received_at, trace_id, newest_before)
    select core.shard_of(p_tenant_id, j.device_id), j.reading_id, p_tenant_id, j.device_id, j.metric, j.timestamp, j.value,
      v_now, p_trace_id, greatest(l.newest_before, max(least(j.timestamp, v_now)) over (
        partition by l.series order by j.position rows between unbounded preceding and 1 preceding))
    from judged j
    join latest l using (device_id, metric)
    where j.outcome <> c_duplicate
    order by l.series, j.position
  )
  select count(*) filter (where j.outcome = c_accepted), count(*) filter (where j.outcome = c_duplicate),
    count(*) filter (where j.outcome = c_overwritten), min(j.timestamp) filter (where j.outcome <> c_duplicate),
    max(j.timestamp) filter (where j.outcome <> c_duplicate),
    coalesce(
      (select jsonb_agg(jsonb_build_object(
          'index', r.position - 1,
          'reason', case r.enabled when true then 'series_limit' when false then 'device_disabled' else 'unknown_device' end)
          order by r.position)
        from reading r where r.enabled is not true or not v_taken[r.position]),
      '[]'),
    (select count(*) from latest l where l.newest_before is null)
  into accepted, duplicates, overwritten, v_first, v_last, refused, v_new
  from judged j;
  if v_new > 0 then
    perform ingest._count_series(p_tenant_id, v_new, p_skip_new_series);
  end if;
  if accepted + overwritten > 0 then
    perform audit.write(array[audit.event(
      p_tenant_id => p_tenant_id,
      p_event_type => 'device.readings_accepted',
      p_message => format('%s readings accepted', accepted + overwritten),
      -- The times identify the partitions of the readings.
      p_details => jsonb_build_object('accepted', accepted, 'duplicates', duplicates, 'overwritten', overwritten,
        'refused', jsonb_array_length(refused), 'first_timestamp', v_first, 'last_timestamp', v_last),
      p_source_service => 'ui_iot',
      p_trace_id => p_trace_id)]);
    perform core.notify('pulse_evaluator');
  end if;
  return next;
end
$$;

comment on function ingest.record_readings(text, text[], text[], timestamptz[], double precision[], text, boolean) is
  'Store a batch of readings, queue them for the evaluator in their order and keep the newest of each device and metric. '
  'The same value for the same instant counts as duplicate, another value as overwritten. A reading of an unknown or disabled '
  'device is refused with its position and reason. Raise PULIM if the tenant would exceed its limit of series. With '
  'p_skip_new_series the readings of the series above the limit are refused instead, which costs a look at every series.';
