-- An event about a caller is the request itself, with the span id that its process gave it. Every other row of the trail
-- hangs from the row it is about, which its details identify, most specific first.
create view trace._audit_spans as
select
  l.tenant_id,
  l.trace_id,
  l.timestamp,
  kind.name as kind,
  case
    when kind.name = 'request' and l.details ->> 'span_id' ~ '^[0-9a-f]{16}$' then l.details ->> 'span_id'
    else core.span_id(l.trace_id, 'audit', l.event_id::text)
  end as span_id,
  case when kind.name = 'audit' then array[
    case when l.entity_type = 'job' then core.span_id(l.trace_id, 'attempt', l.entity_id || ':' || (l.details ->> 'attempt')) end,
    case when l.entity_type = 'job' then core.span_id(l.trace_id, 'job', l.entity_id) end,
    core.span_id(l.trace_id, 'event', l.details ->> 'event_id'),
    core.span_id(l.trace_id, 'alert', case when l.entity_type = 'alert' then l.entity_id else l.details ->> 'alert_id' end),
    l.details ->> 'request_span_id'
  ] end as parents,
  -- A request is recorded when it is decided, so it began earlier by its duration.
  case when kind.name = 'request' then l.timestamp - interval '1 ms' * coalesce(l.duration_ms, 0) else l.timestamp end as at,
  case when kind.name = 'request' then l.duration_ms end as duration_ms,
  l.source_service as service,
  l.entity_type,
  l.entity_id,
  case
    when kind.name = 'request' and l.details ? 'path' then concat_ws(
      ' ', l.details ->> 'method', l.details ->> 'path',
      case when l.category = 'auth' and l.severity <> 'info' then '(' || l.message || ')' end
    )
    else l.message
  end as what,
  l.details || jsonb_build_object('event_type', l.event_type, 'actor_type', l.actor_type, 'actor_id', l.actor_id) as details
from public.audit_log l
cross join lateral (
  select case
    when l.event_type in (
      'auth.login_success', 'auth.login_failure', 'auth.forbidden', 'auth.rate_limited', 'auth.token_refresh',
      'device.authenticated'
    ) then 'request'
    else 'audit'
  end as name
) kind;

comment on view trace._audit_spans is
  'Requests and audit rows as spans of a trace. timestamp lets callers prune partitions.';
