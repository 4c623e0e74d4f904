-- Builds one tree a tenant. Each row names its possible parents, nearest first. Without any parent it hangs from
-- the request before it or, if clocks differ, from the first request. A parent's kind always comes before its child's in
-- request, reading, evaluation, alert, event, suppression and job, attempt, audit. So there is no cycle, and because
-- parents are searched among the returned rows, there is no orphan.
--
-- The two growing tables are partitioned by time, and the trace provides the bounds: for audit_log the time in the id,
-- for telemetry, where devices' clocks count, the times that the trail holds for the readings of each request. The
-- subselects make them known before a partition is opened. Without bounds, each partition costs one index probe.
--
-- Volatile although it only reads, so that its snapshot is younger than the locks on the partitions of its plan. An
-- older one would see rows that were moved to a new partition only in the default partition, where the plan does not
-- look.
--
-- p_most bounds the rows read, not the rows returned: a client that never changes its trace id makes an endless trace.
-- Of such a trace the rows that were written first are read, nearly in that order, because the indexes keep equal keys
-- in order.
create function trace._spans(p_trace_id text, p_tenant_id text, p_most integer default null) returns table (
  span_id text,
  parent_span_id text,
  kind text,
  at timestamptz,
  duration_ms double precision,
  service text,
  entity_type text,
  entity_id text,
  what text,
  details jsonb
)
language plpgsql volatile
rows 20
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off  -- a partition may have been empty when the plan was made
-- Planned once a session: a plan for each trace takes ten times as long as the rows, and prunes no more.
set plan_cache_mode = force_generic_plan
as $$
begin
  return query
  with audit as materialized (
    select s.*
    from trace._audit_spans s
    where s.trace_id = p_trace_id and s.tenant_id = p_tenant_id
      and s.timestamp >= coalesce(core.trace_started_at(p_trace_id), '-infinity')
    limit p_most
  ), brought as materialized (
    select
      coalesce(
        case when bool_and(a.details ? 'first_timestamp') then min((a.details ->> 'first_timestamp')::timestamptz) end,
        core.trace_started_at(p_trace_id) - interval '7 days',  -- the oldest readings that are accepted
        '-infinity'
      ) as first_at,
      coalesce(
        case when bool_and(a.details ? 'last_timestamp') then max((a.details ->> 'last_timestamp')::timestamptz) end,
        'infinity'
      ) as last_at
    from audit a
    where a.details ->> 'event_type' = 'device.readings_accepted'
  ), reading as materialized (
    select r.device_id, r.metric, r.timestamp, r.received_at, r.value
    from public.telemetry r
    where r.trace_id = p_trace_id and r.tenant_id = p_tenant_id
      and r.timestamp >= (select b.first_at from brought b) and r.timestamp <= (select b.last_at from brought b)
    limit 20 * p_most
  ), node as materialized (
    select a.kind, a.span_id, a.parents, a.at, a.duration_ms, a.service, a.entity_type, a.entity_id, a.what, a.details
    from audit a
    union all
    select
      'reading', core.span_id_of_reading(p_trace_id, p_tenant_id, r.device_id, r.metric), null, min(r.received_at), null,
      'ui_iot', 'device', r.device_id,
      case count(*)
        when 1 then format('%s is %s', r.metric, core.number_text(min(r.value)))
        else format('%s readings of %s from %s to %s', count(*), r.metric, core.number_text(min(r.value)),
          core.number_text(max(r.value)))
      end,
      jsonb_build_object(
        'metric', r.metric, 'readings', count(*), 'min_value', min(r.value), 'max_value', max(r.value),
        'first_timestamp', min(r.timestamp), 'last_timestamp', max(r.timestamp)
      ) || case when (select count(*) from reading) >= 20 * p_most then '{"truncated": true}' else '{}' end::jsonb
    from reading r
    group by r.device_id, r.metric
    union all
    select s.kind, s.span_id, s.parents, s.at, s.duration_ms, s.service, s.entity_type, s.entity_id, s.what, s.details
    from (
      (
        select * from trace._evaluation_spans s
        where s.trace_id = p_trace_id and s.tenant_id = p_tenant_id
          -- An evaluation aggregates all its events, so evaluations are omitted if there are too many events.
          and (
            p_most is null
            or (
              select count(*)
              from (
                select from public.alert_events e
                where e.trace_id = p_trace_id and e.tenant_id = p_tenant_id limit p_most
              ) events
            ) < p_most
          )
      )
      union all
      (select * from trace._alert_spans s where s.trace_id = p_trace_id and s.tenant_id = p_tenant_id limit p_most)
      union all
      (select * from trace._event_spans s where s.trace_id = p_trace_id and s.tenant_id = p_tenant_id limit p_most)
      union all
      (select * from trace._suppression_spans s where s.trace_id = p_trace_id and s.tenant_id = p_tenant_id limit p_most)
      union all
      (select * from trace._job_spans s where s.trace_id = p_trace_id and s.tenant_id = p_tenant_id limit p_most)
      union all
      (select * from trace._attempt_spans s where s.trace_id = p_trace_id and s.tenant_id = p_tenant_id limit p_most)
    ) s
  ), counted as (
    select
      n.*,
      n.kind = 'request' as is_request,
      greatest(1, count(*) filter (where n.kind = 'request') over (order by n.at, n.kind <> 'request', n.span_id)) as requests
    from node n
  )
  select
    c.span_id,
    case
      when c.is_request then null
      -- Each is a look-up in a hash table, however many rows there are. The cost of a join would depend on estimates.
      when c.parents[1] in (select n.span_id from node n) then c.parents[1]
      when c.parents[2] in (select n.span_id from node n) then c.parents[2]
      when c.parents[3] in (select n.span_id from node n) then c.parents[3]
      when c.parents[4] in (select n.span_id from node n) then c.parents[4]
      when c.parents[5] in (select n.span_id from node n) then c.parents[5]
      else first_value(case when c.is_request then c.span_id end) over (partition by c.requests order by not c.is_request)
    end,
    c.kind, c.at, c.duration_ms, c.service, c.entity_type, c.entity_id, c.what, c.details
  from counted c
  order by c.at, array_position(
    '{request,reading,evaluation,alert,event,suppression,job,attempt,audit}'::text[], c.kind), c.span_id;
end
$$;

comment on function trace._spans(text, text, integer) is
  'Return the rows that a trace id left behind in a tenant, as a tree, in order of time. p_most: maximum number of rows '
  'read of each kind, readings twenty times as many; null: all.';
