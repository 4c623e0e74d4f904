create schema trace;
comment on schema trace is 'Spans of a trace, found in the rows of all tables, and rows whose cause is missing.';

-- Comments of earlier revisions, rewritten.
comment on schema audit is
  'The audit trail: event types, the functions that write and seal events, and the auditor''s views.';
comment on table audit.attack_detector is 'Progress of the search for attacks: one row.';
comment on column audit.attack_detector.checked_at is 'Time before which every recorded refusal has been searched.';
comment on column audit.attack_findings.subject is 'Account or address under attack; all if there is no single one.';
comment on column audit.attack_findings.last_at is 'Last event that counts, updated while the attack goes on.';
comment on column audit.attack_findings.accounts is 'Accounts under attack, the most within one window.';
comment on column audit.attack_findings.addresses is 'Addresses that the attack came from, the most within one window.';
comment on column audit.attack_findings.detected_at is 'Time of detection.';
comment on column audit.attack_findings.closed_at is
  'Time at which the attack had been quiet for long enough; null while it goes on.';
comment on column audit.attack_findings.alert_id is
  'System alert of the finding; null if many findings of its kind had an alert already.';
comment on table audit.blocks is
  'Sealed blocks of audit_log in sealed order. block_no is the block''s leaf in the Merkle tree.';
comment on column audit.blocks.sealed_at is 'Time of sealing, by the database''s clock.';
comment on column audit.blocks.epoch is 'Lease under which the block was sealed.';
comment on column audit.blocks.entry is
  'Signed note of an entry, which continues the log on another server or with another key. Null for blocks of rows.';
comment on table audit.checkpoints is
  'Signed statements of the log''s size and root hash. Only the copies outside the database are proof.';
comment on column audit.checkpoints.root is 'RFC 6962 root over the leaf hashes of these blocks.';
comment on column audit.checkpoints.signed_at is 'Time of signing.';
comment on column audit.checkpoints.key_id is 'Id of the signing key, eight hex digits.';
comment on table audit.epochs is
  'Servers that wrote to the audit trail, newest last. A row whose xmin differs from row_xmin was copied from another server.';
comment on column audit.epochs.database_oid is 'Object id of the database on that server.';
comment on column audit.epochs.relation_oid is 'Object id of this table on that server.';
comment on column audit.epochs.row_xmin is
  'Transaction that wrote this row. A row that was loaded from a dump has another xmin.';
comment on column audit.epochs.noticed_at is 'Time at which Pulse first noticed the server.';
comment on table audit.holds is 'Legal holds. A month that overlaps a hold in force is not dropped.';
comment on column audit.holds.starts_at is 'Start of the held range, inclusive.';
comment on column audit.holds.ends_at is 'End of the held range, exclusive.';
comment on column audit.holds.reason is 'Reason for the hold.';
comment on column audit.holds.placed_by is 'Actor that placed the hold.';
comment on column audit.holds.placed_at is 'Time of the placement.';
comment on column audit.holds.released_by is 'Actor that released the hold; null while it is in force.';
comment on column audit.holds.released_at is 'Time of the release.';
comment on column audit.holds.release_reason is 'Reason for the release.';
comment on table audit.retention is
  'State of the audit trail''s retention, from which views compute how late it is: one row.';
comment on column audit.retention.keep_days is
  'Age in days at which a month is dropped, as the ops worker last set it; 0: never.';
comment on column audit.retention.last_run_at is
  'End of the last retention pass without a fault; null before the first.';
comment on table audit.sealer is 'Lease of the right to seal: one row.';
comment on column audit.sealer.epoch is 'Number of leases. A block of an older lease is refused.';
comment on table audit.signing_keys is
  'Public keys that signed checkpoints. For information only: verify with a copy from outside this database.';
comment on column audit.signing_keys.first_used_at is 'Time of the sealer''s first signature with the key.';
comment on table audit.tombstones is
  'Months that retention dropped, each with a signed note. Their blocks may lack their rows.';
comment on column audit.tombstones.last_block is
  'Last block of the month that was dropped. Blocks sealed later in the same month are not covered.';
comment on column audit.tombstones.released_at is 'Time at which they were dropped.';
comment on column audit.tombstones.note is 'Signed note about the dropped month.';
comment on table audit.tracked_tables is 'Tables whose changes are audit events. audit.track adds to them.';
comment on column audit.tracked_tables.entity_type is 'Name of a row in events: rule, device, channel, …';
comment on column audit.tracked_tables.only_columns is 'Columns whose changes are recorded; null: all.';
comment on table audit.verifications is
  'Results of the ops worker''s newest verifications of the sealed log and the SQL layer.';
comment on table delivery.lanes is
  'Channels that were paused. Nothing is sent before paused_until. Then one probe is sent, and the limit rises step by step.';
comment on column delivery.lanes.paused_at is 'Time of the answer that asked for the latest pause.';
comment on column delivery.lanes.deliveries is
  'Deliveries since the pause ended. As many requests may be in flight, but at least one.';
comment on column delivery.lanes.lifted_at is
  'Time at which a person lifted the pause. Answers to earlier requests cause no new pause.';
comment on column delivery.lanes.hangs is
  'Attempts in a row that ran into their deadline. From the third on, each one pauses the channel.';
comment on table evaluator.inbox is
  'Readings that are not evaluated yet. A pass deletes the readings it evaluates in the transaction of their effects.';
comment on column evaluator.inbox.timestamp is 'Time of measurement, by the device''s clock.';
comment on column evaluator.inbox.value is 'Measured value.';
comment on column evaluator.inbox.received_at is 'Time of arrival.';
comment on column evaluator.inbox.trace_id is 'Trace of the request that brought the reading.';
comment on column evaluator.inbox.arrival is
  'Order in which readings count. Within one device and metric, requests count in the order of their commits.';
comment on column evaluator.inbox.newest_before is
  'Evaluation time of the newest earlier reading of the device and metric; null if there was none.';
comment on table evaluator.lanes is
  'Sixteen rows a tenant. The lock on a row is the right to evaluate that shard of the tenant''s devices.';
comment on column evaluator.opening_counts.openings is 'Alerts that opened in that minute.';
comment on table evaluator.silences is
  'Silences by fingerprint. An alert that reopens before the end of a silence is silent.';
comment on column ingest.api_key_uses.last_used_at is 'Time of the last accepted request, up to a minute early.';
comment on column ingest.idempotency_keys.key_hash is
  'scrypt of the key, salted with the principal and the address of the request.';
comment on column ingest.idempotency_keys.created_at is 'Start of the transaction that made the answer.';
comment on column ingest.idempotency_keys.answer is
  'Answer to the request, as the API shows it; null only within the transaction that makes it.';
comment on column ingest.idempotency_keys.secrets is
  'Members of the answer that are shown once, encrypted by the key, which is not stored; null if there are none.';
comment on table ingest.series_counts is
  'Number of a tenant''s series: the sum of its rows. Transactions that begin or remove series update it.';
comment on table ops.escalations is
  'Next escalation step of each alert that waits for one. Acknowledging or closing the alert deletes the row.';
comment on column ops.escalations.policy_id is 'Policy that the alert follows.';
comment on column ops.escalations.step_number is 'Next step.';
comment on column ops.escalations.due_at is 'Time of the next step.';
comment on column ops.escalations.delayed_by is
  'Delay of all steps against the opening of the alert, after a silence or a policy that was attached late.';
comment on table ops.limit_refusals is 'Number of refusals by tenant and limit.';
comment on column ops.limit_refusals.audited_at is 'Time of the last audit event about this row.';
comment on table ops.process_starts is
  'Number of starts and clean stops of each service''s processes since the installation.';
comment on column ops.process_starts.stops is 'Processes that stopped cleanly. The others crashed or still run.';
comment on table ops.work_locks is
  'One row for each kind of work that one session at a time does. Sessions lock the row and never change it.';
comment on table public.alert_events is
  'Everything that happened to an alert, in order. Rows without dispatched_at are the dispatcher''s queue.';
comment on column public.alert_events.event_id is 'Number of the event, ascending within each alert.';
comment on column public.alert_events.occurred_at is 'Time of the event; device time if a reading caused it.';
comment on column public.alert_events.recorded_at is 'Time at which the row was written.';
comment on column public.alert_events.dispatched_at is 'Time of the dispatcher''s decision; null until then.';
comment on column public.alert_events.actor is 'Actor of the event; null for the evaluator.';
comment on column public.alert_events.value is 'Value of the reading that caused the event.';
comment on column public.alert_events.channel_id is 'Channel that the escalation step names.';
comment on column public.alert_events.trace_id is 'Trace that caused the event.';
comment on column public.alert_events.decided_at is
  'Start of the transaction that decided the event; null for events older than the column.';
comment on column public.alert_events.reading_received_at is
  'Arrival of the reading that caused the event; null if none did, and for events older than the column.';
comment on column public.alert_events.message is
  'One sentence about the event; null if the alert''s message is enough, and for events older than the column.';
comment on column public.alert_events.policy_id is
  'Escalation policy of the step; null for other events, and for steps of alerts that ended before the column.';
comment on column public.alert_events.changes is
  'Number of openings and closings in one pass that a flapping event stands for; null for other kinds.';
comment on column public.alert_rules.name is 'Display name, shown in notifications.';
comment on column public.alert_rules.metric is 'Metric to watch.';
comment on column public.alert_rules.operator is 'Comparison that counts as a breach.';
comment on column public.alert_rules.for_seconds is
  'Seconds for which every reading must breach before the alert opens; 0 opens at the first.';
comment on column public.alert_rules.device_id is 'The one device to watch; null with tag null watches all devices.';
comment on column public.alert_rules.tag is 'Tag of the devices to watch.';
comment on column public.alert_rules.enabled is 'False stops the evaluation. Disabling a rule closes its alerts.';
comment on column public.alert_rules.created_at is 'Time of creation.';
comment on column public.alert_rules.updated_at is 'Time of the last change.';
comment on column public.alert_rules.disabled_reason is
  'Reason for which Pulse disabled the rule; null if it is enabled or a person disabled it.';
comment on table public.alerts is 'Alerts. At most one alert of each fingerprint is not closed.';
comment on column public.alerts.alert_id is 'Number of the alert, in the order of opening.';
comment on column public.alerts.fingerprint is
  'Subject of the alert: rule:<rule_id>:<device_id>, health:<service>, attack:<kind>:<subject> or audit:log.';
comment on column public.alerts.rule_id is 'Rule that opened the alert; null for alerts of Pulse itself.';
comment on column public.alerts.rule_name is 'Name of the rule, updated with the rule until the alert closes.';
comment on column public.alerts.device_id is 'Device that the alert is about.';
comment on column public.alerts.metric is 'Metric that the alert is about.';
comment on column public.alerts.severity is 'Severity of the rule, updated with the rule until the alert closes.';
comment on column public.alerts.message is 'One sentence about the alert.';
comment on column public.alerts.value is 'Value that opened the alert.';
comment on column public.alerts.opened_at is
  'Time of opening, by the device''s clock but never later than the arrival of the reading.';
comment on column public.alerts.acknowledged_at is 'Time of acknowledgement.';
comment on column public.alerts.acknowledged_by is 'Actor that acknowledged the alert.';
comment on column public.alerts.closed_at is 'Time of closing.';
comment on column public.alerts.close_reason is
  'Reason for closing, such as resolved or rule changed, or the text of the person that closed it.';
comment on column public.alerts.silenced_until is 'Time until which the opening and escalations are not notified.';
comment on column public.alerts.recorded_at is 'Time at which the row was written.';
comment on column public.alerts.device_name is
  'Name of the device when the alert opened, kept after the device is deleted.';
comment on table public.api_keys is
  'API keys of machines. Expired keys are kept for a while, so that later uses are recognized.';
comment on column public.api_keys.name is 'Display name.';
comment on column public.api_keys.role is 'Role of the key''s requests: viewer, auditor, operator or admin.';
comment on column public.api_keys.scopes is
  'Parts of the API that the key may use, such as devices:read, within its role.';
comment on column public.api_keys.created_at is 'Time of creation.';
comment on column public.api_keys.expires_at is 'Time of expiry.';
comment on column public.api_keys.revoked_at is 'Time of revocation; null if the key was not revoked.';
comment on table public.audit_log is
  'The audit trail, one row an event, partitioned by month of timestamp. Rows are never changed.';
comment on column public.audit_log.timestamp is 'Time of the event, set by the producer.';
comment on column public.audit_log.event_id is 'UUIDv7 from the producer. A repeated write has the same id.';
comment on column public.audit_log.recorded_at is 'Time at which the row was written, by the database''s clock.';
comment on column public.audit_log.category is 'Part of Pulse that the event concerns: auth, device, alert, …';
comment on column public.audit_log.entity_type is 'Kind of object that the event is about.';
comment on column public.audit_log.entity_id is 'Id of that object.';
comment on column public.audit_log.entity_name is 'Name of that object at the time of the event.';
comment on column public.audit_log.action is 'Action, in the past tense.';
comment on column public.audit_log.message is 'One sentence about the event.';
comment on column public.audit_log.details is 'Further facts, without secrets.';
comment on column public.audit_log.source_service is 'Service that wrote the event.';
comment on column public.audit_log.actor_id is 'Id of the actor.';
comment on column public.audit_log.actor_name is 'Name of the actor.';
comment on column public.audit_log.ip_address is 'Address of the client, as trusted proxies report it.';
comment on column public.audit_log.trace_id is 'Trace that the event belongs to.';
comment on column public.audit_log.duration_ms is 'Duration in milliseconds.';
comment on column public.audit_log.xid is
  'Transaction that wrote the row, plus 2^48 times its epoch. With the snapshots of audit.blocks it identifies the row''s block.';
comment on table public.delivery_attempts is 'Attempts to deliver a job, with their outcomes.';
comment on column public.delivery_attempts.attempt_id is 'Number of the attempt across all jobs.';
comment on column public.delivery_attempts.lease_epoch is 'Lease under which the attempt ran.';
comment on column public.delivery_attempts.worker is 'Worker that made the attempt.';
comment on column public.delivery_attempts.outcome is
  'delivered, retry, limited (the receiver asked to wait), refused, gone (410) or unknown (the lease ran out, and the request may have been sent).';
comment on column public.delivery_attempts.error is 'Error text, without secrets.';
comment on column public.delivery_attempts.started_at is 'Time at which the request was sent.';
comment on column public.delivery_attempts.finished_at is 'Time at which the outcome was recorded.';
comment on column public.device_state.timestamp is 'Time of measurement.';
comment on column public.device_state.value is 'Measured value.';
comment on column public.device_state.received_at is 'Time of arrival.';
comment on column public.device_state.trace_id is 'Trace of the request that brought the reading.';
comment on column public.device_state.newest_before is
  'Evaluation time of the newest reading before the request that wrote this row; null if there was none.';
comment on column public.devices.device_id is 'Name that the device sends with its readings.';
comment on column public.devices.name is 'Display name.';
comment on column public.devices.tags is 'Groups of the device. Rules and routes may name one.';
comment on column public.devices.token_hash is
  'SHA-256 of the device''s API token. The token is shown once and never stored.';
comment on column public.devices.is_gateway is
  'True if the device''s token may report readings of the tenant''s other devices.';
comment on column public.devices.enabled is 'False refuses the device''s token and readings.';
comment on column public.devices.created_at is 'Time of creation.';
comment on column public.devices.updated_at is 'Time of the last change.';
comment on table public.escalation_policies is
  'Escalation policies: the channels to notify next while an alert stays open and unacknowledged.';
comment on column public.escalation_policies.name is 'Display name.';
comment on column public.escalation_policies.created_at is 'Time of creation.';
comment on column public.escalation_policies.updated_at is 'Time of the last change.';
comment on column public.escalation_steps.after_minutes is
  'Minutes after the opening of the alert, ascending with step_number.';
comment on column public.escalation_steps.channel_id is 'Channel to notify.';
comment on table public.installation is 'Identity of this installation: one row.';
comment on column public.installation.installation_id is
  'Random id that distinguishes installations with a common receiver.';
comment on column public.installation.created_at is
  'Time at which the id was made. Incidents of alerts recorded earlier keep a key without it.';
comment on column public.installation.fingerprint_key is
  'Random key of the fingerprints that replace the paths of shown addresses.';
comment on column public.installation.log_begun_at is
  'Time at which the first block of the audit trail was sealed here. While it is null, a sealer without a key may create one.';
comment on table public.notification_channels is 'Destinations of notifications.';
comment on column public.notification_channels.name is 'Display name.';
comment on column public.notification_channels.config is
  'Address and secret of the channel. Each member is sealed for the delivery worker, or plain without its key. Only delivery.claim and delivery.read_channel_secrets read it.';
comment on column public.notification_channels.enabled is
  'False stops notifications. Each one that is skipped is recorded in suppressions.';
comment on column public.notification_channels.created_at is 'Time of creation.';
comment on column public.notification_channels.updated_at is 'Time of the last change.';
comment on column public.notification_channels.shown_url is
  'Part of the address that may be shown: scheme, host and a fingerprint; null if there is none or it is no plain address.';
comment on column public.notification_channels.disabled_reason is
  'Reason for which Pulse disabled the channel; null if it is enabled or a person disabled it.';
comment on table public.notification_jobs is 'Notifications, one for each alert event and channel.';
comment on column public.notification_jobs.job_id is
  'Number of the job. Jobs of one subject and channel are sent in this order.';
comment on column public.notification_jobs.event_id is 'Alert event to notify.';
comment on column public.notification_jobs.alert_id is 'Alert of the event.';
comment on column public.notification_jobs.channel_id is 'Channel to notify.';
comment on column public.notification_jobs.run_at is 'Earliest time of the next attempt.';
comment on column public.notification_jobs.attempts is
  'Attempts begun, counted at claim, so that a job that kills its worker ends.';
comment on column public.notification_jobs.max_attempts is 'Attempts after which the job is dead.';
comment on column public.notification_jobs.lease_epoch is
  'Number of leases. A finish with an older number changes nothing.';
comment on column public.notification_jobs.idempotency_key is
  'Key sent with every attempt, so that the receiver can drop a repeat.';
comment on column public.notification_jobs.payload is 'Content of the notification, as of the event.';
comment on column public.notification_jobs.subject is
  'Fingerprint of the alert. A channel gets the notifications of one rule and device in order, over all their alerts.';
comment on column public.notification_jobs.created_at is 'Time at which the dispatcher created the job.';
comment on column public.notification_jobs.finished_at is 'Time at which the job was delivered or dead.';
comment on column public.notification_jobs.last_error is 'Error of the last failed attempt.';
comment on column public.notification_jobs.leased_at is 'Start of the latest lease.';
comment on column public.notification_jobs.redriven_at is
  'Time at which the job was last queued again; null if it never was.';
comment on column public.notification_jobs.dead_reason is
  'Reason for giving up: refused, exhausted, limited for too long, gone (410), channel_disabled, channel_deleted, or superseded (the beginning never arrived, or the alert was no longer open). Null for jobs that died before the column.';
comment on table public.notification_routes is 'Routes from alerts to channels. Every condition that is set must hold.';
comment on column public.notification_routes.name is 'Display name.';
comment on column public.notification_routes.channel_id is 'Channel to notify.';
comment on column public.notification_routes.min_severity is 'Least severity of the alerts that take the route.';
comment on column public.notification_routes.rule_id is 'Rule whose alerts take the route; null: any.';
comment on column public.notification_routes.tag is 'Tag of the devices whose alerts take the route; null: any.';
comment on column public.notification_routes.enabled is 'False disables the route.';
comment on column public.notification_routes.created_at is 'Time of creation.';
comment on column public.notification_routes.updated_at is 'Time of the last change.';
comment on column public.revocations.reason is 'Reason for the revocation.';
comment on column public.revocations.created_at is 'Time of the revocation.';
comment on column public.revocations.created_by is 'Id of the actor that revoked the tokens.';
comment on column public.revocations.expires_at is 'Time at which the revocation ends.';
comment on table public.rule_state is 'Pairs of rule and device that are pending or firing. A quiet pair has no row.';
comment on column public.rule_state.due_at is
  'Time at which a pending breach opens, by the server''s clock: for_seconds after the arrival of its first reading.';
comment on table public.service_health is 'Result of the health monitor''s last check of each service.';
comment on column public.service_health.url is 'Address of the check.';
comment on column public.service_health.checked_at is 'Time of the last check.';
comment on column public.service_health.changed_at is 'Time of the last change of status.';
comment on column public.service_health.latency_ms is 'Milliseconds to the answer.';
comment on column public.service_health.error is 'Reason for a failed check.';
comment on column public.service_metrics.recorded_at is 'Time at which the collector read the counter.';
comment on table public.suppressions is
  'Alert events that did not become a notification for a channel, each with the reason.';
comment on column public.suppressions.channel_id is 'Channel that was not notified; null if no route led to one.';
comment on column public.suppressions.reason is 'Reason for the suppression; docs/delivery.md explains each one.';
comment on column public.suppressions.recorded_at is 'Time of the decision.';
comment on column public.suppressions.route_id is 'Route that came nearest to the channel; null if none leads there.';
comment on table public.telemetry is
  'Readings, one row each, partitioned by day of timestamp. A reading that is sent twice is stored once.';
comment on column public.telemetry.timestamp is 'Time of measurement, by the device''s clock.';
comment on column public.telemetry.metric is 'Measured quantity, for example temperature.';
comment on column public.telemetry.value is 'Measured value, always finite.';
comment on column public.telemetry.received_at is 'Arrival of the request, by the database''s clock.';
comment on column public.telemetry.trace_id is 'Trace of the request that brought the reading.';
comment on column public.telemetry.overwrites is
  'Number of requests that replaced the value of this instant. The row holds the value that arrived last.';
comment on column public.tenant_limits.limit_name is 'Name of the limit.';
comment on column public.tenant_limits.value is 'Upper bound, 0 for no limit; for evaluation_weight the weight.';
comment on column public.tenant_limits.updated_at is 'Time of the last change.';
comment on table public.tenant_usage is
  'Rows that count against a tenant''s limits. Transactions that add or remove them update it.';
comment on column public.tenants.name is 'Display name.';
comment on column public.tenants.created_at is 'Time of creation.';
