-- An attempt with an unknown outcome may have arrived, so its alert must be closed at the receiver.
create function delivery._call_off_reason(p_tenant_id text, p_alert_id bigint, p_channel_id bigint, p_kind text) returns text
language sql
stable
set search_path = pg_catalog, pg_temp
set jit = off
set enable_seqscan = off
set enable_bitmapscan = off
as $$
  select 'superseded'
  where case p_kind
    when 'opened' then false
    when 'updated' then false  -- it may be the beginning for its channel
    when 'escalated' then exists (
      select
      from public.alerts a
      where a.tenant_id = p_tenant_id and a.alert_id = p_alert_id and a.status <> 'open'
    )
    else (
      select not bool_or(j.state = 'delivered' or exists (
        select
        from public.delivery_attempts t
        where t.tenant_id = j.tenant_id and t.job_id = j.job_id and t.outcome = 'unknown'
      ))
      from public.notification_jobs j
      where j.tenant_id = p_tenant_id and j.alert_id = p_alert_id and j.channel_id = p_channel_id
        and j.kind in ('opened', 'escalated', 'updated')
    )
  end
$$;

comment on function delivery._call_off_reason(text, bigint, bigint, text) is
  'Return ''superseded'' for a notification that must no longer be sent, else null. That is an acknowledgement or end whose '
  'beginning never arrived at the channel, or an escalation of an alert that is no longer open.';
