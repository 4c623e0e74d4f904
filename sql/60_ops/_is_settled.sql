create function ops._is_settled(p_tenant_id text, p_alert_id bigint) returns boolean
language sql stable
set search_path = pg_catalog, pg_temp
return
  not exists (
    select
    from public.notification_jobs job
    where job.tenant_id = p_tenant_id
      and job.alert_id = p_alert_id
      and job.state in ('pending', 'leased')
  )
  and not exists (
    select
    from public.alert_events event
    where event.tenant_id = p_tenant_id
      and event.alert_id = p_alert_id
      and event.dispatched_at is null
  );

comment on function ops._is_settled(text, bigint) is
  'Return whether all events of the alert are dispatched and all its notifications are finished.';
