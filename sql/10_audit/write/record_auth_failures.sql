-- Called on a connection of its own, so that the rows survive a rollback of the refused request. The caller commits.
create procedure audit.record_auth_failures(p_failures jsonb)
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  insert into public.audit_log (
    tenant_id, timestamp, event_id, event_type, category, severity, action, message, details, source_service,
    actor_type, actor_id, actor_name, ip_address, trace_id, duration_ms
  )
  select
    coalesce(f.tenant_id, 'system'),
    f.timestamp,
    f.event_id,
    'auth.' || kind.action,
    'auth',
    'warning',
    kind.action,
    coalesce(f.message, 'request refused: ' || kind.reason),
    coalesce(f.details, '{}') || jsonb_build_object('reason', kind.reason),
    coalesce(audit._own_service(), f.source_service, core.current_service(), 'sql'),
    coalesce(f.actor_type, 'anonymous'),
    f.actor_id,
    f.actor_name,
    f.ip_address,
    f.trace_id,
    f.duration_ms
  from jsonb_populate_recordset(null::public.audit_log, p_failures) as f
  cross join lateral (
    select
      r.reason,
      case when r.reason in ('forbidden', 'rate_limited') then r.reason else 'login_failure' end as action
    from (select coalesce(f.details ->> 'reason', 'login_failure') as reason) r
  ) as kind
  on conflict do nothing;
end
$$;

comment on procedure audit.record_auth_failures(jsonb) is
  'Store refused requests, an array of objects with the columns of audit_log as keys: auth.forbidden, auth.rate_limited '
  'or auth.login_failure, by details.reason. A repeat with the same id and time changes nothing.';
