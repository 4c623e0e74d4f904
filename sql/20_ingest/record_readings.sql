create function ingest.record_readings(
  p_tenant_id text,
  p_device_ids text[],
  p_metrics text[],
  p_timestamps timestamptz[],
  p_values double precision[],
  p_trace_id text
) returns table (accepted integer, duplicates integer, refused jsonb)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
#variable_conflict use_column
declare
  v_sent integer := cardinality(p_device_ids);
  v_first timestamptz;
  v_last timestamptz;
begin
  perform core.name_request(p_trace_id);
  with reading as materialized (
    select r.device_id, r.metric, r.timestamp, r.value, r.position - 1 as index, d.enabled
    from unnest(p_device_ids, p_metrics, p_timestamps, p_values) with ordinality
      as r (device_id, metric, timestamp, value, position)
    left join public.devices d on d.tenant_id = p_tenant_id and d.device_id = r.device_id
  ), stored as (
    -- In key order: two batches with the same readings wait for each other instead of deadlocking, and the
    -- readings of one device and metric get ascending ids in the order of their timestamps.
    insert into public.telemetry as t (tenant_id, timestamp, device_id, metric, value, trace_id)
    select p_tenant_id, r.timestamp, r.device_id, r.metric, r.value, p_trace_id
    from reading r
    where r.enabled
    order by r.device_id, r.metric, r.timestamp
    on conflict do nothing
    returning t.device_id, t.metric, t.timestamp, t.value, t.reading_id, t.received_at
  ), queued as (
    insert into evaluator.inbox (shard, reading_id, tenant_id, device_id, metric, timestamp, value, received_at, trace_id)
    select core.shard_of(p_tenant_id, s.device_id), s.reading_id, p_tenant_id, s.device_id, s.metric, s.timestamp,
      s.value, s.received_at, p_trace_id
    from stored s
  ), latest as (
    insert into public.device_state as d (tenant_id, device_id, metric, timestamp, value, received_at, trace_id)
    select distinct on (s.device_id, s.metric)
      p_tenant_id, s.device_id, s.metric, s.timestamp, s.value, s.received_at, p_trace_id
    from stored s
    order by s.device_id, s.metric, s.timestamp desc
    on conflict (tenant_id, device_id, metric) do update
    set timestamp = excluded.timestamp, value = excluded.value, received_at = excluded.received_at,
      trace_id = excluded.trace_id
    where excluded.timestamp > d.timestamp
  )
  select s.count, s.first, s.last,
    coalesce(
      (select jsonb_agg(jsonb_build_object(
          'index', r.index,
          'reason', case when r.enabled is null then 'unknown_device' else 'device_disabled' end) order by r.index)
        from reading r where r.enabled is not true),
      '[]')
  into accepted, v_first, v_last, refused
  from (select count(*), min(timestamp) as first, max(timestamp) as last from stored) s;
  duplicates := v_sent - accepted - jsonb_array_length(refused);
  if accepted > 0 then
    perform audit.write(array[audit.event(
      p_tenant_id => p_tenant_id,
      p_event_type => 'device.readings_accepted',
      p_message => format('%s readings accepted', accepted),
      -- The times say in which partitions the readings are.
      p_details => jsonb_build_object('accepted', accepted, 'duplicates', duplicates, 'refused', jsonb_array_length(refused),
        'first_timestamp', v_first, 'last_timestamp', v_last),
      p_source_service => 'ui_iot',
      p_trace_id => p_trace_id)]);
    perform pg_notify('pulse_evaluator', '');
  end if;
  return next;
end
$$;

comment on function ingest.record_readings(text, text[], text[], timestamptz[], double precision[], text) is
  'Store a batch of readings, queue them for the evaluator and keep the newest of each device and metric; a reading '
  'stored before counts as duplicate, one of an unknown or disabled device is refused with its position and reason.';
