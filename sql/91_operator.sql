-- Operators read everything except secrets, over all tenants, and run the repairs of docs/runbooks.md. A table that holds a
-- secret is granted by columns. A partition is read through its parent.
grant usage on schema core, audit, evaluator, delivery, ops, trace, metrics, api to pulse_operator;
grant select on
  public.alembic_version, public.sql_layer, public.tenants,
  public.telemetry, public.device_state, evaluator.inbox, evaluator.lanes,
  public.alert_rules, public.rule_state, public.alerts, public.alert_events,
  public.notification_routes, public.escalation_policies, public.escalation_steps, ops.escalations, ops.process_starts,
  public.notification_jobs, public.delivery_attempts, public.suppressions, delivery.lanes,
  public.service_health, public.service_metrics,
  public.audit_log, audit.blocks, audit.checkpoints, audit.sealer, audit.signing_keys, audit.tombstones, audit.holds,
  audit.retention, audit.tracked_tables, audit.attack_findings, audit.epochs, audit.verifications,
  evaluator.silences,
  public.tenant_limits, public.tenant_usage, ops.limit_refusals, evaluator.opening_counts,
  public.revocations
to pulse_operator;
grant select (is_singleton, installation_id, created_at) on public.installation to pulse_operator;
grant select (tenant_id, device_id, name, tags, is_gateway, enabled, created_at, updated_at, first_reading_id)
  on public.devices to pulse_operator;
grant select (
  tenant_id, key_id, name, role, scopes, created_at, created_by, expires_at, revoked_at, revoked_by
) on public.api_keys to pulse_operator;
grant select (tenant_id, channel_id, name, kind, shown_url, enabled, created_at, updated_at, disabled_reason)
  on public.notification_channels to pulse_operator;
-- Sessions show the statements of others, and ending one is denial of service. No process that answers strangers may
-- call these.
revoke execute on function ops.sessions, ops.end_session, ops.end_overdue_sessions from pulse_app;
grant execute on function
  ops.sessions, ops.end_session, ops.ensure_partitions, ops.lock_suspects, audit.act, audit.read_verifications, core.act,
  core.name_request, core.trace_started_at
to pulse_operator;
