-- Everything that one trace id left behind, in the database's order of time: readings by when they arrived, not by
-- the device's clock. Each branch is reached by the index on its trace_id; readings of one device and metric are one
-- row, so that a big request stays readable. The condition on the tenant stands outside, once for all branches.
create view api.trace_timeline with (security_barrier) as
select
  story.tenant_id,
  story.trace_id,
  story.at,
  story.source,
  story.service,
  story.entity_type,
  story.entity_id,
  story.what,
  story.details,
  story.duration_ms
from (
  select
    r.tenant_id,
    r.trace_id,
    min(r.received_at) as at,
    'reading' as source,
    'ui_iot' as service,
    'device' as entity_type,
    r.device_id as entity_id,
    case count(*)
      when 1 then format('%s is %s', r.metric, min(r.value))
      else format('%s readings of %s from %s to %s', count(*), r.metric, min(r.value), max(r.value))
    end as what,
    jsonb_build_object(
      'metric', r.metric,
      'readings', count(*),
      'min_value', min(r.value),
      'max_value', max(r.value),
      'first_timestamp', min(r.timestamp),
      'last_timestamp', max(r.timestamp)
    ) as details,
    null::double precision as duration_ms
  from public.telemetry r
  group by r.tenant_id, r.trace_id, r.device_id, r.metric
  union all
  select
    a.tenant_id,
    a.trace_id,
    a.recorded_at,
    'alert',
    case when a.rule_id is null then 'ops_worker' else 'evaluator_iot' end,
    'alert',
    a.alert_id::text,
    a.message,
    jsonb_build_object(
      'rule', a.rule_name, 'device_id', a.device_id, 'severity', a.severity, 'status', a.status, 'value', a.value
    ),
    null
  from public.alerts a
  union all
  select
    e.tenant_id,
    e.trace_id,
    e.recorded_at,
    'alert_event',
    -- People act through the API; what names nobody was decided by the service itself.
    case
      when e.kind = 'escalated' then 'ops_worker'
      when e.actor is not null or e.kind in ('acknowledged', 'silenced') then 'ui_iot'
      else 'evaluator_iot'
    end,
    'alert',
    e.alert_id::text,
    'alert ' || e.kind,
    jsonb_build_object(
      'event_id', e.event_id, 'actor', e.actor, 'value', e.value, 'occurred_at', e.occurred_at,
      'dispatched_at', e.dispatched_at
    ),
    null
  from public.alert_events e
  union all
  select
    s.tenant_id,
    s.trace_id,
    s.recorded_at,
    'suppression',
    'dispatcher',
    'alert',
    s.alert_id::text,
    'nobody told: ' || s.reason,
    jsonb_build_object('event_id', s.event_id, 'channel_id', s.channel_id, 'reason', s.reason),
    null
  from public.suppressions s
  union all
  select
    j.tenant_id,
    j.trace_id,
    j.created_at,
    'job',
    'dispatcher',
    'notification_job',
    j.job_id::text,
    format('alert %s goes to %s %s, now %s', j.kind, c.kind, c.name, j.state),
    jsonb_build_object(
      'event_id', j.event_id, 'alert_id', j.alert_id, 'channel_id', j.channel_id, 'channel', c.name, 'state', j.state,
      'attempts', j.attempts, 'run_at', j.run_at, 'finished_at', j.finished_at, 'last_error', j.last_error
    ),
    1000 * extract(epoch from j.finished_at - j.created_at)::double precision
  from public.notification_jobs j
  left join public.notification_channels c on c.tenant_id = j.tenant_id and c.channel_id = j.channel_id
  union all
  select
    d.tenant_id,
    d.trace_id,
    coalesce(d.started_at, d.finished_at),
    'attempt',
    'delivery_worker',
    'notification_job',
    d.job_id::text,
    format('attempt %s: %s', d.attempt, d.outcome) || coalesce(' (HTTP ' || d.status_code || ')', ''),
    jsonb_build_object(
      'channel_id', d.channel_id, 'status_code', d.status_code, 'error', d.error, 'worker', d.worker,
      'finished_at', d.finished_at
    ),
    d.duration_ms
  from public.delivery_attempts d
  union all
  select
    l.tenant_id,
    l.trace_id,
    l.timestamp,
    'audit',
    l.source_service,
    l.entity_type,
    l.entity_id,
    l.message,
    l.details || jsonb_build_object('event_type', l.event_type, 'actor_type', l.actor_type, 'actor_id', l.actor_id),
    l.duration_ms
  from public.audit_log l
) story
where story.tenant_id = core.current_tenant()
  and story.trace_id is not null;

comment on view api.trace_timeline is
  'All that a trace id left behind in the tenant''s rows, one line each; ask for one trace_id and order by at.';
