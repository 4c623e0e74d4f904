-- The functions that each service calls. Code that is injected into a service has the rights of that service only.
-- pulse_app is a single login for four services, kept for installations that use it.

do $grants$
declare
  v_routine record;
begin
  -- Functions of schema core protect nothing: clock, context, identifiers and checks.
  for v_routine in
    select p.oid::regprocedure as name
    from pg_proc p
    where p.pronamespace = 'core'::regnamespace and p.proname not like '\_%' and p.proowner = current_user::regrole
    order by p.oid::regprocedure::text
  loop
    execute format(
      'grant execute on routine %s to pulse_ui, pulse_evaluator, pulse_dispatcher, pulse_delivery, pulse_ops', v_routine.name);
  end loop;
end
$grants$;

-- Each process records its start, and a worker reports the session that blocks it.
grant usage on schema core, audit, ops, api to pulse_ui, pulse_evaluator, pulse_dispatcher, pulse_delivery, pulse_ops;
grant execute on function audit.record_process to pulse_ui, pulse_evaluator, pulse_dispatcher, pulse_delivery, pulse_ops;
grant execute on function ops.lock_suspects to pulse_evaluator, pulse_dispatcher, pulse_delivery, pulse_ops;

grant usage on schema evaluator to pulse_evaluator;
grant execute on function evaluator.evaluate, evaluator.waiting_tenants to pulse_evaluator;

grant usage on schema dispatcher to pulse_dispatcher;
grant execute on function dispatcher.dispatch to pulse_dispatcher;

-- Only the delivery worker gets the secrets of channels.
grant usage on schema delivery to pulse_delivery;
grant execute on function
  delivery.claim, delivery.extend, delivery.finish, delivery.read_channel_secrets, delivery.reap, delivery.reseal_channel
to pulse_delivery;

grant execute on function
  audit.newest_checkpoint, ops.end_overdue_sessions, ops.ensure_partitions, ops.prune, ops.prune_telemetry, ops.record_health,
  ops.record_service_metrics, ops.run_escalations, ops.set_default_limits
to pulse_ops;

grant usage on schema ingest, evaluator, dispatcher, delivery to pulse_ui;
grant execute on function
  api.trace_timeline, audit.append, audit.is_foreign, audit.newest_checkpoint, audit.read_events,
  ingest.authenticate_api_keys, ingest.authenticate_devices, ingest.claim_idempotency_key, ingest.create_api_key,
  ingest.create_device, ingest.create_revocation, ingest.create_tenant, ingest.delete_device, ingest.delete_revocation,
  ingest.keep_answer, ingest.lock_resource, ingest.note_api_key_use, ingest.read_revocations, ingest.record_readings,
  ingest.revoke_api_key, ingest.rotate_device_token, ingest.tenants, ingest.update_device,
  evaluator.acknowledge_alert, evaluator.close_alert, evaluator.create_rule, evaluator.delete_rule,
  evaluator.silence_alert, evaluator.update_rule,
  dispatcher.create_route, dispatcher.delete_route, dispatcher.update_route,
  delivery.create_channel, delivery.delete_channel, delivery.fingerprint_key, delivery.redrive,
  delivery.reserve_channel_id, delivery.resume_channel, delivery.update_channel,
  ops.create_policy, ops.delete_policy, ops.record_refusals, ops.set_limit, ops.tenant_limits, ops.update_policy
to pulse_ui;
grant execute on procedure audit.record_auth_failures to pulse_ui;
-- For the audit writer's COPY. The trigger log_source refuses events of other services.
grant insert (
  tenant_id, timestamp, event_id, event_type, category, severity, entity_type, entity_id, entity_name, action, message,
  details, source_service, actor_type, actor_id, actor_name, ip_address, trace_id, duration_ms
) on public.audit_log to pulse_ui;
