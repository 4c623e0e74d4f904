create function delivery._bury(p_tenant_ids text[], p_job_ids bigint[], p_fates text[])
returns integer
language plpgsql
volatile
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
as $$
declare
  v_count integer;
begin
  with doomed as materialized (
    select l.place, d.fate
    from unnest(p_tenant_ids, p_job_ids, p_fates) as d (tenant_id, job_id, fate)
    cross join lateral (
      select j.ctid as place
      from public.notification_jobs j
      where j.tenant_id = d.tenant_id and j.job_id = d.job_id and j.lease_until is null and j.finished_at is null
      for update skip locked
    ) l
    where d.fate is not null
  ), dead as (
    update public.notification_jobs j
    set
      state = 'dead',
      finished_at = clock_timestamp(),
      last_error = replace(d.fate, '_', ' ')
    from doomed d
    where j.ctid = d.place  -- one that moved since this statement began is left to the next call
    returning j.tenant_id, j.job_id, j.event_id, j.alert_id, j.channel_id, j.kind, j.trace_id, d.fate
  ), suppressed as (
    insert into public.suppressions (tenant_id, event_id, alert_id, channel_id, reason, trace_id)
    select d.tenant_id, d.event_id, d.alert_id, d.channel_id, d.fate, d.trace_id
    from dead d
    order by d.job_id
  )
  select count(*), case when count(*) > 0 then audit.write(array_agg(
    audit.event(
      p_tenant_id => d.tenant_id,
      p_event_type => 'delivery.dead',
      p_entity_type => 'job',
      p_entity_id => d.job_id::text,
      p_message => format('%s notification of alert %s was given up: %s', d.kind, d.alert_id, replace(d.fate, '_', ' ')),
      p_details => jsonb_build_object(
        'alert_id', d.alert_id, 'event_id', d.event_id, 'channel_id', d.channel_id, 'kind', d.kind, 'reason', d.fate
      ),
      p_source_service => 'delivery_worker',
      p_actor_type => 'service',
      p_actor_id => 'delivery_worker',
      p_trace_id => d.trace_id
    )
    order by d.job_id
  )) end
  into v_count
  from dead d;
  return v_count;
end
$$;

comment on function delivery._bury(text[], bigint[], text[]) is
  'Gives up pending jobs whose channel is deleted or disabled, and records why nobody was told; returns how many.';
