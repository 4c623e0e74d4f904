create function ops._count_process(p_service text, p_event text) returns void
language sql volatile
set search_path = pg_catalog, pg_temp
begin atomic
  insert into ops.process_starts as p (service, starts, stops, started_at, stopped_at)
  values (
    p_service,
    (p_event = 'started')::integer,
    (p_event = 'stopped')::integer,
    case when p_event = 'started' then clock_timestamp() end,
    case when p_event = 'stopped' then clock_timestamp() end
  )
  on conflict (tenant_id, service) do update set
    starts = p.starts + excluded.starts,
    stops = p.stops + excluded.stops,
    started_at = coalesce(excluded.started_at, p.started_at),
    stopped_at = coalesce(excluded.stopped_at, p.stopped_at);
end;

comment on function ops._count_process(text, text) is
  'Count a start or a clean stop of a service''s process (p_event: started, stopped).';
