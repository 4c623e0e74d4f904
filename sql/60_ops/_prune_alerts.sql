create function ops._prune_alerts(p_before timestamptz, p_limit integer) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
-- Every look-up here is by key, so that the cost follows the batch. With statistics of a table that has grown since, or
-- of alerts with very many events, the planner would choose plans that read the whole table.
set enable_seqscan = off
set enable_bitmapscan = off
set enable_hashjoin = off
set enable_mergejoin = off
set jit = off
as $$
declare
  v_tenant_ids text[];
  v_alert_ids bigint[];
begin
  with old as materialized (
    select alert.tenant_id, alert.alert_id
    from public.alerts alert
    where alert.status = 'closed'
      and alert.closed_at < p_before
      and ops._is_settled(p_tenant_id => alert.tenant_id, p_alert_id => alert.alert_id)
    order by alert.closed_at
    limit p_limit
    for update skip locked
  )
  select array_agg(old.tenant_id), array_agg(old.alert_id)
  into v_tenant_ids, v_alert_ids
  from old;

  -- A dead notification of such an alert may be redriven now. Wait for the end of that, then check again.
  perform
  from unnest(v_tenant_ids, v_alert_ids) as old (tenant_id, alert_id)
  join public.notification_jobs job
    on job.tenant_id = old.tenant_id
    and job.alert_id = old.alert_id
  order by job.tenant_id, job.job_id
  for update of job;

  select array_agg(old.tenant_id), array_agg(old.alert_id)
  into v_tenant_ids, v_alert_ids
  from unnest(v_tenant_ids, v_alert_ids) as old (tenant_id, alert_id)
  where ops._is_settled(p_tenant_id => old.tenant_id, p_alert_id => old.alert_id);

  return ops._delete_alerts(p_tenant_ids => v_tenant_ids, p_alert_ids => v_alert_ids);
end
$$;

comment on function ops._prune_alerts(timestamptz, integer) is
  'Delete the oldest alerts that closed before p_before, at most p_limit, with their events, notifications, attempts '
  'and suppressions. An alert that is not settled stays. Return {table: rows deleted}.';
