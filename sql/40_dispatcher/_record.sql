create function dispatcher._record(p_decisions jsonb) returns void
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
begin
  perform audit.write(array_agg(audit.event(
    p_tenant_id => d.tenant_id,
    p_event_type => 'delivery.' || d.decision,
    p_entity_type => case when d.job_id is null then 'alert' else 'job' end,
    p_entity_id => coalesce(d.job_id, d.alert_id)::text,
    p_message => case when d.job_id is null
      then format('event %s of alert %s is not sent: %s', d.event_id, d.alert_id, d.reason)
      else format('event %s of alert %s goes to channel %s', d.event_id, d.alert_id, d.channel_id) end,
    p_details => jsonb_strip_nulls(jsonb_build_object('alert_id', d.alert_id, 'event_id', d.event_id,
      'channel_id', d.channel_id, 'kind', d.kind, 'reason', d.reason, 'channels', d.channels)),
    p_source_service => 'dispatcher',
    p_actor_type => 'service',
    p_actor_id => 'dispatcher',
    p_trace_id => d.trace_id)))
  from jsonb_to_recordset(p_decisions) as d (decision text, tenant_id text, event_id bigint, alert_id bigint,
    channel_id bigint, job_id bigint, kind text, reason text, channels jsonb, trace_id text)
  having count(*) > 0;
  if p_decisions @? '$[*] ? (@.decision == "queued")' then
    perform core.notify('pulse_delivery');
  end if;
end
$$;

comment on function dispatcher._record(jsonb) is 'Write the audit events of the decisions and wake the delivery workers.';
