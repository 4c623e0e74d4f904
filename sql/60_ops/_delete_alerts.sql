create function ops._delete_alerts(p_tenant_ids text[], p_alert_ids bigint[]) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_job_tenant_ids text[];
  v_job_ids bigint[];
  v_attempts integer;
  v_jobs integer;
  v_suppressions integer;
  v_events integer;
  v_alerts integer;
begin
  select array_agg(job.tenant_id), array_agg(job.job_id)
  into v_job_tenant_ids, v_job_ids
  from unnest(p_tenant_ids, p_alert_ids) as old (tenant_id, alert_id)
  join public.notification_jobs job
    on job.tenant_id = old.tenant_id
    and job.alert_id = old.alert_id;

  -- Uses the jobs' keys, because a join of all three tables may read the attempts once for each alert.
  delete from public.delivery_attempts attempt
  using unnest(v_job_tenant_ids, v_job_ids) as job (tenant_id, job_id)
  where attempt.tenant_id = job.tenant_id and attempt.job_id = job.job_id;
  get diagnostics v_attempts = row_count;

  delete from public.notification_jobs job
  using unnest(p_tenant_ids, p_alert_ids) as old (tenant_id, alert_id)
  where job.tenant_id = old.tenant_id and job.alert_id = old.alert_id;
  get diagnostics v_jobs = row_count;

  delete from public.suppressions suppression
  using unnest(p_tenant_ids, p_alert_ids) as old (tenant_id, alert_id)
  where suppression.tenant_id = old.tenant_id and suppression.alert_id = old.alert_id;
  get diagnostics v_suppressions = row_count;

  delete from public.alert_events event
  using unnest(p_tenant_ids, p_alert_ids) as old (tenant_id, alert_id)
  where event.tenant_id = old.tenant_id and event.alert_id = old.alert_id;
  get diagnostics v_events = row_count;

  delete from public.alerts alert
  using unnest(p_tenant_ids, p_alert_ids) as old (tenant_id, alert_id)
  where alert.tenant_id = old.tenant_id and alert.alert_id = old.alert_id;
  get diagnostics v_alerts = row_count;

  return jsonb_build_object(
    'delivery_attempts', v_attempts,
    'notification_jobs', v_jobs,
    'suppressions', v_suppressions,
    'alert_events', v_events,
    'alerts', v_alerts
  );
end
$$;

comment on function ops._delete_alerts(text[], bigint[]) is
  'Delete closed alerts, locked by the caller, with their events, notifications, attempts and suppressions. Return '
  '{table: rows deleted}.';
