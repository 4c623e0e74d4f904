-- The job records the decision about its event and channel, so no suppression is added.
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
        -- This is checked again, because the beginning may have been redriven since the caller looked.
        and (d.fate <> 'superseded' or (
          delivery._call_off_reason(j.tenant_id, j.alert_id, j.channel_id, j.kind) is not null
          and (
            select true
            from public.notification_jobs e
            where e.tenant_id = j.tenant_id and e.subject = j.subject and e.channel_id = j.channel_id
              and e.job_id < j.job_id and e.state in ('pending', 'leased')
            limit 1
          ) is null
        ))
      for update skip locked
    ) l
    where d.fate is not null
  ), dead as (
    update public.notification_jobs j
    set
      state = 'dead',
      finished_at = clock_timestamp(),
      dead_reason = d.fate,
      last_error = case d.fate
        when 'superseded' then case j.kind
          when 'escalated' then 'superseded: the alert was no longer open'
          else 'superseded: the channel never received the beginning of the alert'
        end
        else replace(d.fate, '_', ' ')
      end
    from doomed d
    where j.ctid = d.place  -- a row that moved since this statement began is left to the next call
    returning j.tenant_id, j.job_id, j.event_id, j.alert_id, j.channel_id, j.kind, j.last_error, j.trace_id, d.fate
  )
  select count(*), case when count(*) > 0 then audit.write(array_agg(
    audit.event(
      p_tenant_id => d.tenant_id,
      p_event_type => case d.fate when 'superseded' then 'delivery.superseded' else 'delivery.dead' end,
      p_entity_type => 'job',
      p_entity_id => d.job_id::text,
      p_message => format('%s notification of alert %s was given up: %s', d.kind, d.alert_id, d.last_error),
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
  'Give up pending jobs that are superseded or whose channel is deleted or disabled, record the reason, and return their number.';
