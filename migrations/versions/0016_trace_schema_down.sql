drop schema trace;
comment on schema audit is
  'The audit trail: the registry of event types, the ways to write an event, the auditor''s views.';
comment on table audit.attack_detector is 'How far the search for attacks has come: one row.';
comment on column audit.attack_detector.checked_at is 'Refusals recorded before then have been looked at.';
comment on column audit.attack_findings.subject is 'Account or address it is about; all for what has no single one.';
comment on column audit.attack_findings.last_at is 'Last event that counts, kept up while it goes on.';
comment on column audit.attack_findings.accounts is 'Accounts that were tried, the most within one window.';
comment on column audit.attack_findings.addresses is 'Addresses it came from, the most within one window.';
comment on column audit.attack_findings.detected_at is 'When it was found.';
comment on column audit.attack_findings.closed_at is
  'When it had been quiet for long enough; null while it is going on.';
comment on column audit.attack_findings.alert_id is
  'System alert that it opened; null when many of its kind had one already.';
comment on table audit.blocks is
  'Sealed blocks of audit_log in their one order; block_no is the block''s leaf in the Merkle tree.';
comment on column audit.blocks.sealed_at is 'When it was sealed, by the database''s clock.';
comment on column audit.blocks.epoch is 'Lease under which it was sealed.';
comment on column audit.blocks.entry is
  'Signed note of an entry: the log continues on another server, or with another key. Null for blocks of rows.';
comment on table audit.checkpoints is
  'Signed statements of how many blocks there are and what they hash to. The copies outside the database are the proof.';
comment on column audit.checkpoints.root is 'RFC 6962 root over their leaf hashes.';
comment on column audit.checkpoints.signed_at is 'When it was signed.';
comment on column audit.checkpoints.key_id is 'Key that signed it, eight hex digits.';
comment on table audit.epochs is
  'Servers that wrote to the audit trail, the newest last. A row is at home while row_xmin is its xmin.';
comment on column audit.epochs.database_oid is 'The database there.';
comment on column audit.epochs.relation_oid is 'Object id of this table there.';
comment on column audit.epochs.row_xmin is
  'Transaction that wrote this row: a row that was loaded from a dump has another one.';
comment on column audit.epochs.noticed_at is 'When Pulse first noticed the server.';
comment on table audit.holds is 'Legal holds: no month that overlaps one in force is dropped.';
comment on column audit.holds.starts_at is 'Events from then on are held.';
comment on column audit.holds.ends_at is 'Events before then are held.';
comment on column audit.holds.reason is 'Why.';
comment on column audit.holds.placed_by is 'Who placed it.';
comment on column audit.holds.placed_at is 'When.';
comment on column audit.holds.released_by is 'Who released it; null while it is in force.';
comment on column audit.holds.released_at is 'When it was released.';
comment on column audit.holds.release_reason is 'Why it was released.';
comment on table audit.retention is
  'What the retention of audit_log last did, so that a view can tell when it is late: one row.';
comment on column audit.retention.keep_days is
  'Age at which a month is dropped, as the ops worker was last set; 0: never.';
comment on column audit.retention.last_run_at is 'End of its last pass without a fault; null before the first.';
comment on table audit.sealer is 'Who seals now: one row.';
comment on column audit.sealer.epoch is 'Fence: counts the leases; a block of an older epoch is refused.';
comment on table audit.signing_keys is
  'Public keys that signed checkpoints. For information: trust a copy that never was in this database.';
comment on column audit.signing_keys.first_used_at is 'When the sealer first signed with it.';
comment on table audit.tombstones is
  'Months that retention dropped: the blocks that may have no rows any more, each with a signed note.';
comment on column audit.tombstones.last_block is
  'Last block of the month that was dropped; what is sealed later in the same month counts anew.';
comment on column audit.tombstones.released_at is 'When they were dropped.';
comment on column audit.tombstones.note is 'Signed note that says so.';
comment on table audit.tracked_tables is 'Tables whose every change is an audit event; audit.track adds to them.';
comment on column audit.tracked_tables.entity_type is 'What a row is called in events: rule, device, channel, …';
comment on column audit.tracked_tables.only_columns is 'The only columns that matter; null: all.';
comment on table audit.verifications is
  'What the ops worker found when it last verified the sealed log and the SQL layer by itself.';
comment on table delivery.lanes is
  'Channels that were paused: nothing is sent before paused_until, then one probe, then step by step as much as before.';
comment on column delivery.lanes.paused_at is 'When the latest pause was asked for.';
comment on column delivery.lanes.deliveries is
  'Deliveries since the pause ended: as many requests may be in flight, at least one.';
comment on column delivery.lanes.lifted_at is
  'When a person lifted the pause; answers to earlier requests pause no more.';
comment on column delivery.lanes.hangs is
  'Attempts in a row that ran into their deadline; from the third on each pauses the channel.';
comment on table evaluator.inbox is
  'Readings not evaluated yet; a pass deletes what it evaluates, in the same transaction as its effects.';
comment on column evaluator.inbox.timestamp is 'When it was measured.';
comment on column evaluator.inbox.value is 'The value.';
comment on column evaluator.inbox.received_at is 'When it arrived.';
comment on column evaluator.inbox.trace_id is 'Trace of the request that brought it.';
comment on column evaluator.inbox.arrival is
  'Order in which readings count; for one device and metric it is the order in which their requests commit.';
comment on column evaluator.inbox.newest_before is
  'Evaluation time of the newest reading of the device and metric before this one; null when there was none.';
comment on table evaluator.lanes is
  'Sixteen rows a tenant; the lock of a row is the right to evaluate the readings of that shard of the tenant''s devices.';
comment on column evaluator.opening_counts.openings is 'Alerts that opened in it.';
comment on table evaluator.silences is
  'Silences by fingerprint: an alert that reopens before the end of a silence is silenced too.';
comment on column ingest.api_key_uses.last_used_at is 'When the key was last accepted, up to a minute early.';
comment on column ingest.idempotency_keys.key_hash is
  'scrypt of the key, with the principal and the address that it was sent to as salt.';
comment on column ingest.idempotency_keys.created_at is 'When the transaction began that made the answer.';
comment on column ingest.idempotency_keys.answer is
  'What the request was answered, as the API shows it; null only within the transaction that makes it.';
comment on column ingest.idempotency_keys.secrets is
  'Members of the answer that are shown once, encrypted by the key, which is not stored; null without such.';
comment on table ingest.series_counts is
  'Series of a tenant: the sum of its rows, kept by the transactions that begin and remove them.';
comment on table ops.escalations is
  'The next escalation step of each alert that waits for one; acknowledging or closing deletes the row.';
comment on column ops.escalations.policy_id is 'Policy it follows.';
comment on column ops.escalations.step_number is 'Step that is taken next.';
comment on column ops.escalations.due_at is 'When it is taken.';
comment on column ops.escalations.delayed_by is
  'How much later than counted from the opening the steps come: after a silence, or when the policy was attached late.';
comment on table ops.limit_refusals is 'How often a limit refused something to a tenant.';
comment on column ops.limit_refusals.audited_at is 'When this row last wrote an audit event.';
comment on table ops.process_starts is
  'How often processes of each service started and stopped cleanly, since the installation.';
comment on column ops.process_starts.stops is 'Processes that stopped cleanly; the others crashed or run.';
comment on table ops.work_locks is
  'One row for each kind of work that one session at a time does; the row is only locked, never changed.';
comment on table public.alert_events is
  'Everything that happened to an alert, in order; the dispatcher''s queue while dispatched_at is null.';
comment on column public.alert_events.event_id is 'Number of the event; ascending for each alert.';
comment on column public.alert_events.occurred_at is 'When it happened (device time for what a reading caused).';
comment on column public.alert_events.recorded_at is 'When the row was written.';
comment on column public.alert_events.dispatched_at is 'When the dispatcher decided about it; null until then.';
comment on column public.alert_events.actor is 'Who did it; null for the evaluator.';
comment on column public.alert_events.value is 'Reading that caused it.';
comment on column public.alert_events.channel_id is 'Channel an escalation step names.';
comment on column public.alert_events.trace_id is 'Trace that caused it.';
comment on column public.alert_events.decided_at is
  'When the transaction that decided it began; null for events older than the column.';
comment on column public.alert_events.reading_received_at is
  'When the reading that caused it arrived; null when none did, and for events older than the column.';
comment on column public.alert_events.message is
  'One sentence about the event; null when the alert''s message says all, and for events older than the column.';
comment on column public.alert_events.policy_id is
  'Escalation policy of the step; null for other events, and for steps of ended alerts from before the column.';
comment on column public.alert_events.changes is
  'For the kind flapping: number of openings and closings of one pass that the alert stands for; else null.';
comment on column public.alert_rules.name is 'Name for people; it stands in notifications.';
comment on column public.alert_rules.metric is 'Metric the rule watches.';
comment on column public.alert_rules.operator is 'Comparison that means trouble.';
comment on column public.alert_rules.for_seconds is
  'How long every reading must breach before the alert opens; 0 opens at the first.';
comment on column public.alert_rules.device_id is 'The one device watched; null with tag null watches all devices.';
comment on column public.alert_rules.tag is 'The group watched.';
comment on column public.alert_rules.enabled is 'A disabled rule evaluates nothing; disabling closes its alerts.';
comment on column public.alert_rules.created_at is 'When the rule was created.';
comment on column public.alert_rules.updated_at is 'When the rule was last changed.';
comment on column public.alert_rules.disabled_reason is
  'Why Pulse disabled the rule; null for a rule that is enabled or that a person disabled.';
comment on table public.alerts is 'Alerts; at most one that is not closed for each fingerprint.';
comment on column public.alerts.alert_id is 'Number of the alert; order of opening.';
comment on column public.alerts.fingerprint is
  'What the alert is about: rule:<rule_id>:<device_id>, or health:<service>.';
comment on column public.alerts.rule_id is 'Rule that opened it; null for alerts of Pulse itself.';
comment on column public.alerts.rule_name is 'The rule''s name; it follows the rule until the alert closes.';
comment on column public.alerts.device_id is 'Device it is about.';
comment on column public.alerts.metric is 'Metric it is about.';
comment on column public.alerts.severity is 'The rule''s severity; it follows the rule until the alert closes.';
comment on column public.alerts.message is 'One sentence for people.';
comment on column public.alerts.value is 'Value that opened it.';
comment on column public.alerts.opened_at is
  'When it opened, in the device''s time, but never later than the arrival of its reading.';
comment on column public.alerts.acknowledged_at is 'When somebody took it.';
comment on column public.alerts.acknowledged_by is 'Who took it.';
comment on column public.alerts.closed_at is 'When it closed.';
comment on column public.alerts.close_reason is 'Why it closed: resolved, rule changed, or what a person wrote.';
comment on column public.alerts.silenced_until is 'Until then no notification of its opening or escalation is sent.';
comment on column public.alerts.recorded_at is 'When the row was written.';
comment on column public.alerts.device_name is 'The device''s name when the alert opened; it outlives the device.';
comment on table public.api_keys is
  'API keys of machines. Rows stay for a while after a key''s end, so that later uses are recognized.';
comment on column public.api_keys.name is 'Name for people.';
comment on column public.api_keys.role is 'Role of its requests: viewer, auditor, operator or admin.';
comment on column public.api_keys.scopes is
  'Parts of the API that it may use, such as devices:read, as far as the role allows.';
comment on column public.api_keys.created_at is 'When the key was created.';
comment on column public.api_keys.expires_at is 'When it ends.';
comment on column public.api_keys.revoked_at is 'When it was revoked; null: not at all.';
comment on table public.audit_log is
  'The audit trail, one row an event, partitioned by month of timestamp; rows are only ever added.';
comment on column public.audit_log.timestamp is 'When it happened, fixed by the producer.';
comment on column public.audit_log.event_id is
  'UUIDv7 from the producer; sent again unchanged when a write is repeated.';
comment on column public.audit_log.recorded_at is 'When the row was written, by the database''s clock.';
comment on column public.audit_log.category is 'What part of Pulse it concerns: auth, device, alert, …';
comment on column public.audit_log.entity_type is 'Kind of thing it is about.';
comment on column public.audit_log.entity_id is 'Which one.';
comment on column public.audit_log.entity_name is 'Its name at the time.';
comment on column public.audit_log.action is 'What happened, past tense.';
comment on column public.audit_log.message is 'One sentence for people.';
comment on column public.audit_log.details is 'The particulars, without secrets.';
comment on column public.audit_log.source_service is 'Service that wrote it.';
comment on column public.audit_log.actor_id is 'Who did it.';
comment on column public.audit_log.actor_name is 'Name of who did it.';
comment on column public.audit_log.ip_address is 'Client address behind trusted proxies.';
comment on column public.audit_log.trace_id is 'Trace it belongs to.';
comment on column public.audit_log.duration_ms is 'How long it took, milliseconds.';
comment on column public.audit_log.xid is
  'Transaction that wrote the row, plus 2^48 times its epoch; with the snapshots of audit.blocks it tells the row''s block.';
comment on table public.delivery_attempts is 'Every try to deliver a job and how it ended.';
comment on column public.delivery_attempts.attempt_id is 'Number of the attempt over all jobs.';
comment on column public.delivery_attempts.lease_epoch is 'Lease under which it ran.';
comment on column public.delivery_attempts.worker is 'Worker that ran it.';
comment on column public.delivery_attempts.outcome is
  'delivered, retry, limited (the receiver asked to wait), refused, gone (410), or unknown: the lease ran out, and the request may have been sent.';
comment on column public.delivery_attempts.error is 'What went wrong, without secrets.';
comment on column public.delivery_attempts.started_at is 'When the request left.';
comment on column public.delivery_attempts.finished_at is 'When the outcome was recorded.';
comment on column public.device_state.timestamp is 'When the newest reading was measured.';
comment on column public.device_state.value is 'Its value.';
comment on column public.device_state.received_at is 'When it arrived.';
comment on column public.device_state.trace_id is 'Trace of the request that brought it.';
comment on column public.device_state.newest_before is
  'Evaluation time of the newest reading before the request that wrote this row; null when there was none.';
comment on column public.devices.device_id is 'Name the device sends in its readings.';
comment on column public.devices.name is 'Name for people.';
comment on column public.devices.tags is 'Groups the device belongs to; rules and routes may name one.';
comment on column public.devices.token_hash is
  'SHA-256 of the device''s API token; the token itself is shown once and never stored.';
comment on column public.devices.is_gateway is
  'Whether the device''s token may report readings of the tenant''s other devices.';
comment on column public.devices.enabled is 'A disabled device''s token and readings are refused.';
comment on column public.devices.created_at is 'When the device was created.';
comment on column public.devices.updated_at is 'When the device was last changed.';
comment on table public.escalation_policies is 'Whom to tell next while an alert stays open and unacknowledged.';
comment on column public.escalation_policies.name is 'Name for people.';
comment on column public.escalation_policies.created_at is 'When the policy was created.';
comment on column public.escalation_policies.updated_at is 'When the policy was last changed.';
comment on column public.escalation_steps.after_minutes is
  'Minutes after the alert opened; ascending with step_number.';
comment on column public.escalation_steps.channel_id is 'Channel that is told.';
comment on table public.installation is 'The identity of this installation: one row.';
comment on column public.installation.installation_id is
  'Random id; it distinguishes installations that share a receiver.';
comment on column public.installation.created_at is
  'When the id was made; incidents of alerts recorded before keep a key without it.';
comment on column public.installation.fingerprint_key is
  'Random key of the fingerprints that are shown instead of the paths of addresses.';
comment on column public.installation.log_begun_at is
  'When the first block of the audit trail was sealed here; null: never, so a sealer without a key may make one.';
comment on table public.notification_channels is 'Where notifications can go.';
comment on column public.notification_channels.name is 'Name for people.';
comment on column public.notification_channels.config is
  'Address and secret of the channel, each member sealed for the delivery worker or, without its key, plain; only delivery.claim and delivery.read_channel_secrets read it.';
comment on column public.notification_channels.enabled is
  'A disabled channel gets nothing; what it misses is recorded in suppressions.';
comment on column public.notification_channels.created_at is 'When the channel was created.';
comment on column public.notification_channels.updated_at is 'When the channel was last changed.';
comment on column public.notification_channels.shown_url is
  'What of the address may be shown: scheme, host and a fingerprint; null when there is none or it is no plain address.';
comment on column public.notification_channels.disabled_reason is
  'Why Pulse disabled the channel; null when a person did, or when it is enabled.';
comment on table public.notification_jobs is 'One notification: one alert event for one channel, exactly once.';
comment on column public.notification_jobs.job_id is
  'Number of the job; jobs of one subject and channel are sent in this order.';
comment on column public.notification_jobs.event_id is 'Alert event it tells of.';
comment on column public.notification_jobs.alert_id is 'Alert it tells of.';
comment on column public.notification_jobs.channel_id is 'Channel it goes to.';
comment on column public.notification_jobs.run_at is 'Not tried before then.';
comment on column public.notification_jobs.attempts is
  'Attempts begun, counted at claim so that a job that kills its worker ends too.';
comment on column public.notification_jobs.max_attempts is 'Attempts after which it is dead.';
comment on column public.notification_jobs.lease_epoch is
  'Fence: counts leases; a finish with an older number changes nothing.';
comment on column public.notification_jobs.idempotency_key is
  'Sent with every attempt, so that the receiver can drop a repeat.';
comment on column public.notification_jobs.payload is 'What is told, as of the event.';
comment on column public.notification_jobs.subject is
  'What it is about, the alert''s fingerprint: a channel hears of one rule and device in order, over all their alerts.';
comment on column public.notification_jobs.created_at is 'When the dispatcher made it.';
comment on column public.notification_jobs.finished_at is 'When it was delivered or died.';
comment on column public.notification_jobs.last_error is 'What went wrong last.';
comment on column public.notification_jobs.leased_at is 'When the latest lease began.';
comment on column public.notification_jobs.redriven_at is
  'When it was last put back in the queue; null when it never was.';
comment on column public.notification_jobs.dead_reason is
  'Why it was given up: refused, exhausted, limited for too long, gone (410), channel_disabled, channel_deleted, or superseded: the beginning never arrived, or the alert was no longer open. Null for jobs that died before the column.';
comment on table public.notification_routes is
  'Which alerts go to which channel; every condition that is set must hold.';
comment on column public.notification_routes.name is 'Name for people.';
comment on column public.notification_routes.channel_id is 'Where it leads.';
comment on column public.notification_routes.min_severity is 'Least severity that takes this route.';
comment on column public.notification_routes.rule_id is 'Only alerts of this rule.';
comment on column public.notification_routes.tag is 'Only alerts of devices with this tag.';
comment on column public.notification_routes.enabled is 'A disabled route takes nothing.';
comment on column public.notification_routes.created_at is 'When the route was created.';
comment on column public.notification_routes.updated_at is 'When the route was last changed.';
comment on column public.revocations.reason is 'Why, for people.';
comment on column public.revocations.created_at is 'When the tokens were revoked.';
comment on column public.revocations.created_by is 'Id of the actor that revoked them.';
comment on column public.revocations.expires_at is 'When the revocation ends.';
comment on table public.rule_state is 'Rule and device pairs that are pending or firing; a quiet pair has no row.';
comment on column public.rule_state.due_at is
  'When a pending breach opens by the server''s clock: for_seconds after the arrival of its first reading.';
comment on table public.service_health is 'What the health monitor last saw of each service.';
comment on column public.service_health.url is 'Where it was asked.';
comment on column public.service_health.checked_at is 'When it was last asked.';
comment on column public.service_health.changed_at is 'When status last changed.';
comment on column public.service_health.latency_ms is 'Milliseconds the answer took.';
comment on column public.service_health.error is 'Why it counts as failed.';
comment on column public.service_metrics.recorded_at is 'When the collector read it.';
comment on table public.suppressions is
  'Why nobody was told: each alert event that did not become a job for a channel, with the reason.';
comment on column public.suppressions.channel_id is 'Channel that was not told; null when no route led anywhere.';
comment on column public.suppressions.reason is
  'Why the channel was not notified; docs/delivery.md explains each reason.';
comment on column public.suppressions.recorded_at is 'When it was decided.';
comment on column public.suppressions.route_id is
  'Route that came nearest to leading to the channel; null when none leads there.';
comment on table public.telemetry is
  'Readings, one row each, partitioned by day of timestamp; a reading sent twice is stored once.';
comment on column public.telemetry.timestamp is 'When the device measured.';
comment on column public.telemetry.metric is 'What was measured, for example temperature.';
comment on column public.telemetry.value is 'The finite number that was measured.';
comment on column public.telemetry.received_at is 'When the request arrived, by the database''s clock.';
comment on column public.telemetry.trace_id is 'Trace of the request that brought it.';
comment on column public.telemetry.overwrites is
  'How many requests replaced the value of this instant; the row holds the value that arrived last.';
comment on column public.tenant_limits.limit_name is 'What is limited.';
comment on column public.tenant_limits.value is 'Most that the tenant may have; 0 for no limit.';
comment on column public.tenant_limits.updated_at is 'When the limit was last changed.';
comment on table public.tenant_usage is
  'Rows that count against a tenant''s limits, kept by the transactions that add and remove them.';
comment on column public.tenants.name is 'Name for people.';
comment on column public.tenants.created_at is 'When the tenant was created.';
