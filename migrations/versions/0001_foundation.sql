-- The state of Pulse: tables, constraints, indexes, seed rows. Behaviour lives in sql/.
-- tenant_id leads every key, so that the two tables that grow can one day be spread over machines by tenant.
-- A service's private work tables live in the service's schema, everything people read lives in public.

create schema core;
create schema audit;
create schema ingest;
create schema evaluator;
create schema dispatcher;
create schema delivery;
create schema ops;
create schema metrics;
create schema api;
comment on schema core is 'Small functions that every other schema uses: time, ids, the transaction''s actor, errors.';
comment on schema audit is 'The audit trail: the registry of event types, the ways to write an event, the auditor''s views.';
comment on schema ingest is 'Devices and their readings, as ui_iot records them.';
comment on schema evaluator is 'Rules and alerts: from new readings to opened and closed alerts.';
comment on schema dispatcher is 'Routes: from alert events to notification jobs and recorded suppressions.';
comment on schema delivery is 'Channels and jobs: claim under a lease, finish under a fence, retry, dead letter.';
comment on schema ops is 'Escalation, health, metrics history, partitions, retention.';
comment on schema metrics is 'Views only: each view is served by the exporter as one metric named pulse_<view>.';
comment on schema api is 'Views that the HTTP API reads; each shows the rows of the tenant in pulse.tenant_id and no others.';

-- Tenants and devices -------------------------------------------------------------------------------------------

create table public.tenants (
  tenant_id text not null,
  name text not null,
  created_at timestamptz not null default now(),
  constraint tenants_pkey primary key (tenant_id),
  constraint tenants_tenant_id_check check (tenant_id ~ '^[a-z0-9][a-z0-9-]{0,62}$')
);
comment on table public.tenants is 'Customers; ''system'' is reserved for events and alerts of Pulse itself.';
comment on column public.tenants.tenant_id is 'Lower-case name used in tokens and keys.';
comment on column public.tenants.name is 'Name for people.';
comment on column public.tenants.created_at is 'When the tenant was created.';
insert into public.tenants (tenant_id, name) values ('system', 'Pulse itself');

create table public.devices (
  tenant_id text not null,
  device_id text not null,
  name text not null,
  tags text[] not null default '{}',
  token_hash bytea,
  is_gateway boolean not null default false,
  enabled boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint devices_pkey primary key (tenant_id, device_id),
  constraint devices_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint devices_device_id_check check (device_id ~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$'),
  constraint devices_token_hash_check check (octet_length(token_hash) = 32),
  constraint devices_tags_check check (cardinality(tags) <= 32)
);
create unique index devices_tenant_id_token_hash_idx on public.devices (tenant_id, token_hash) where token_hash is not null;
comment on table public.devices is 'Devices that may send readings.';
comment on column public.devices.tenant_id is 'Owner.';
comment on column public.devices.device_id is 'Name the device sends in its readings.';
comment on column public.devices.name is 'Name for people.';
comment on column public.devices.tags is 'Groups the device belongs to; rules and routes may name one.';
comment on column public.devices.token_hash is 'SHA-256 of the device''s API token; the token itself is shown once and never stored.';
comment on column public.devices.is_gateway is 'Whether the device''s token may report readings of the tenant''s other devices.';
comment on column public.devices.enabled is 'A disabled device''s token and readings are refused.';
comment on column public.devices.created_at is 'When the device was created.';
comment on column public.devices.updated_at is 'When the device was last changed.';

-- Readings ------------------------------------------------------------------------------------------------------

create sequence public.telemetry_reading_id_seq as bigint;
comment on sequence public.telemetry_reading_id_seq is 'Order of arrival of readings.';

create table public.telemetry (
  tenant_id text not null,
  timestamp timestamptz not null,
  device_id text not null,
  metric text not null,
  value double precision not null,
  reading_id bigint not null default nextval('public.telemetry_reading_id_seq'),
  received_at timestamptz not null default clock_timestamp(),
  trace_id text,
  constraint telemetry_pkey primary key (tenant_id, device_id, metric, timestamp)
) partition by range (timestamp);
create index telemetry_trace_id_idx on public.telemetry (trace_id) where trace_id is not null;
create table public.telemetry_default partition of public.telemetry default;
comment on table public.telemetry is 'Readings, one row each, partitioned by day of timestamp; a reading sent twice is stored once.';
comment on column public.telemetry.tenant_id is 'Owner.';
comment on column public.telemetry.timestamp is 'When the device measured.';
comment on column public.telemetry.device_id is 'Device that measured.';
comment on column public.telemetry.metric is 'What was measured, for example temperature.';
comment on column public.telemetry.value is 'The finite number that was measured.';
comment on column public.telemetry.reading_id is 'Order of arrival.';
comment on column public.telemetry.received_at is 'When the row was written, by the database''s clock.';
comment on column public.telemetry.trace_id is 'Trace of the request that brought it.';
comment on table public.telemetry_default is 'Readings of days whose partition does not exist yet; ops.ensure_partitions moves them.';

create table public.device_state (
  tenant_id text not null,
  device_id text not null,
  metric text not null,
  timestamp timestamptz not null,
  value double precision not null,
  received_at timestamptz not null,
  trace_id text,
  constraint device_state_pkey primary key (tenant_id, device_id, metric)
) with (fillfactor = 50);
comment on table public.device_state is 'The newest reading of each device and metric.';
comment on column public.device_state.tenant_id is 'Owner.';
comment on column public.device_state.device_id is 'Device.';
comment on column public.device_state.metric is 'Metric.';
comment on column public.device_state.timestamp is 'When the newest reading was measured.';
comment on column public.device_state.value is 'Its value.';
comment on column public.device_state.received_at is 'When it arrived.';
comment on column public.device_state.trace_id is 'Trace of the request that brought it.';

-- Local and hot: rows live for milliseconds, so the key that the evaluator's claim needs leads.
create table evaluator.inbox (
  shard smallint not null,
  reading_id bigint not null,
  tenant_id text not null,
  device_id text not null,
  metric text not null,
  timestamp timestamptz not null,
  value double precision not null,
  received_at timestamptz not null default clock_timestamp(),
  trace_id text,
  constraint inbox_pkey primary key (shard, reading_id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
comment on table evaluator.inbox is 'Readings not evaluated yet; a pass deletes what it evaluates, in the same transaction as its effects.';
comment on column evaluator.inbox.shard is 'Hash of tenant and device, 0 to 15: one device is always in one shard.';
comment on column evaluator.inbox.reading_id is 'Order of arrival.';
comment on column evaluator.inbox.tenant_id is 'Owner.';
comment on column evaluator.inbox.device_id is 'Device.';
comment on column evaluator.inbox.metric is 'Metric.';
comment on column evaluator.inbox.timestamp is 'When it was measured.';
comment on column evaluator.inbox.value is 'The value.';
comment on column evaluator.inbox.received_at is 'When it arrived.';
comment on column evaluator.inbox.trace_id is 'Trace of the request that brought it.';

create table evaluator.shards (
  shard smallint not null,
  constraint shards_pkey primary key (shard),
  constraint shards_shard_check check (shard between 0 and 15)
);
comment on table evaluator.shards is 'One row a shard; its row lock is the right to evaluate that shard''s readings, so order holds for each device.';
comment on column evaluator.shards.shard is 'Number of the shard.';
insert into evaluator.shards (shard) select generate_series(0, 15);

-- Escalation policies (rules refer to them) -----------------------------------------------------------------------

create table public.escalation_policies (
  tenant_id text not null,
  policy_id bigint generated always as identity,
  name text not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint escalation_policies_pkey primary key (tenant_id, policy_id),
  constraint escalation_policies_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint escalation_policies_tenant_id_name_key unique (tenant_id, name)
);
comment on table public.escalation_policies is 'Whom to tell next while an alert stays open and unacknowledged.';
comment on column public.escalation_policies.tenant_id is 'Owner.';
comment on column public.escalation_policies.policy_id is 'Number of the policy.';
comment on column public.escalation_policies.name is 'Name for people.';
comment on column public.escalation_policies.created_at is 'When the policy was created.';
comment on column public.escalation_policies.updated_at is 'When the policy was last changed.';

-- Rules and alerts ------------------------------------------------------------------------------------------------

create table public.alert_rules (
  tenant_id text not null,
  rule_id bigint generated always as identity,
  name text not null,
  metric text not null,
  operator text not null,
  threshold double precision not null,
  for_seconds integer not null default 0,
  severity text not null default 'warning',
  device_id text,
  tag text,
  policy_id bigint,
  enabled boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint alert_rules_pkey primary key (tenant_id, rule_id),
  constraint alert_rules_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint alert_rules_policy_id_fkey foreign key (tenant_id, policy_id)
    references public.escalation_policies (tenant_id, policy_id),
  constraint alert_rules_operator_check check (operator in ('>', '>=', '<', '<=', '=', '!=')),
  constraint alert_rules_threshold_check check (threshold > '-Infinity' and threshold < 'Infinity'),
  constraint alert_rules_for_seconds_check check (for_seconds between 0 and 604800),
  constraint alert_rules_severity_check check (severity in ('info', 'warning', 'error', 'critical')),
  constraint alert_rules_scope_check check (device_id is null or tag is null)
);
create index alert_rules_tenant_id_metric_idx on public.alert_rules (tenant_id, metric, device_id) where enabled;
comment on table public.alert_rules is 'Threshold rules: an alert opens while metric <operator> threshold has held for for_seconds.';
comment on column public.alert_rules.tenant_id is 'Owner.';
comment on column public.alert_rules.rule_id is 'Number of the rule.';
comment on column public.alert_rules.name is 'Name for people; it stands in notifications.';
comment on column public.alert_rules.metric is 'Metric the rule watches.';
comment on column public.alert_rules.operator is 'Comparison that means trouble.';
comment on column public.alert_rules.threshold is 'Number to compare with.';
comment on column public.alert_rules.for_seconds is 'How long every reading must breach before the alert opens; 0 opens at the first.';
comment on column public.alert_rules.severity is 'info, warning, error or critical.';
comment on column public.alert_rules.device_id is 'The one device watched; null with tag null watches all devices.';
comment on column public.alert_rules.tag is 'The group watched.';
comment on column public.alert_rules.policy_id is 'Escalation policy of the rule''s alerts.';
comment on column public.alert_rules.enabled is 'A disabled rule evaluates nothing; disabling closes its alerts.';
comment on column public.alert_rules.created_at is 'When the rule was created.';
comment on column public.alert_rules.updated_at is 'When the rule was last changed.';

create table public.rule_state (
  tenant_id text not null,
  rule_id bigint not null,
  device_id text not null,
  shard smallint not null,
  since timestamptz not null,
  firing boolean not null,
  last_timestamp timestamptz not null,
  last_value double precision not null,
  due_at timestamptz,
  trace_id text,
  constraint rule_state_pkey primary key (tenant_id, rule_id, device_id),
  constraint rule_state_rule_id_fkey foreign key (tenant_id, rule_id)
    references public.alert_rules (tenant_id, rule_id) on delete cascade,
  constraint rule_state_due_at_check check (not firing or due_at is null)
) with (fillfactor = 70);
create index rule_state_tenant_id_device_id_idx on public.rule_state (tenant_id, device_id);
create index rule_state_shard_due_at_idx on public.rule_state (shard, due_at) where due_at is not null;
comment on table public.rule_state is 'Rule and device pairs that are pending or firing; a quiet pair has no row.';
comment on column public.rule_state.tenant_id is 'Owner.';
comment on column public.rule_state.rule_id is 'Rule.';
comment on column public.rule_state.device_id is 'Device.';
comment on column public.rule_state.shard is 'Shard of the device.';
comment on column public.rule_state.since is 'Timestamp of the first reading of the unbroken breach.';
comment on column public.rule_state.firing is 'False while the breach is younger than for_seconds, true once the alert is open.';
comment on column public.rule_state.last_timestamp is 'Timestamp of the newest reading evaluated; older ones never rewind the state.';
comment on column public.rule_state.last_value is 'Value of that reading.';
comment on column public.rule_state.due_at is 'When a pending breach opens though no further reading comes.';
comment on column public.rule_state.trace_id is 'Trace of the reading that began the breach.';

create table public.alerts (
  tenant_id text not null,
  alert_id bigint generated always as identity,
  fingerprint text not null,
  rule_id bigint,
  rule_name text not null,
  device_id text,
  metric text,
  severity text not null,
  status text not null default 'open',
  message text not null,
  value double precision,
  opened_at timestamptz not null,
  acknowledged_at timestamptz,
  acknowledged_by text,
  closed_at timestamptz,
  close_reason text,
  silenced_until timestamptz,
  trace_id text,
  recorded_at timestamptz not null default clock_timestamp(),
  constraint alerts_pkey primary key (tenant_id, alert_id),
  constraint alerts_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint alerts_severity_check check (severity in ('info', 'warning', 'error', 'critical')),
  constraint alerts_status_check check (status in ('open', 'acknowledged', 'closed')),
  constraint alerts_closed_at_check check ((status = 'closed') = (closed_at is not null)),
  constraint alerts_close_reason_check check ((status = 'closed') = (close_reason is not null)),
  constraint alerts_acknowledged_check check ((acknowledged_at is null) = (acknowledged_by is null))
);
create unique index alerts_tenant_id_fingerprint_idx on public.alerts (tenant_id, fingerprint) where status <> 'closed';
create index alerts_tenant_id_rule_id_idx on public.alerts (tenant_id, rule_id) where status <> 'closed';
create index alerts_trace_id_idx on public.alerts (trace_id) where trace_id is not null;
create index alerts_closed_at_idx on public.alerts (closed_at) where status = 'closed';
comment on table public.alerts is 'Alerts; at most one that is not closed for each fingerprint.';
comment on column public.alerts.tenant_id is 'Owner; ''system'' for alerts about Pulse itself.';
comment on column public.alerts.alert_id is 'Number of the alert; order of opening.';
comment on column public.alerts.fingerprint is 'What the alert is about: rule:<rule_id>:<device_id>, or health:<service>.';
comment on column public.alerts.rule_id is 'Rule that opened it; null for alerts of Pulse itself.';
comment on column public.alerts.rule_name is 'The rule''s name when it opened.';
comment on column public.alerts.device_id is 'Device it is about.';
comment on column public.alerts.metric is 'Metric it is about.';
comment on column public.alerts.severity is 'The rule''s severity when it opened.';
comment on column public.alerts.status is 'open, acknowledged or closed.';
comment on column public.alerts.message is 'One sentence for people.';
comment on column public.alerts.value is 'Value that opened it.';
comment on column public.alerts.opened_at is 'When it opened, in the device''s time.';
comment on column public.alerts.acknowledged_at is 'When somebody took it.';
comment on column public.alerts.acknowledged_by is 'Who took it.';
comment on column public.alerts.closed_at is 'When it closed.';
comment on column public.alerts.close_reason is 'Why it closed: resolved, rule changed, or what a person wrote.';
comment on column public.alerts.silenced_until is 'Until then no notification of its opening or escalation is sent.';
comment on column public.alerts.trace_id is 'Trace of the reading that opened it.';
comment on column public.alerts.recorded_at is 'When the row was written.';

create table public.alert_events (
  tenant_id text not null,
  event_id bigint generated always as identity,
  alert_id bigint not null,
  kind text not null,
  occurred_at timestamptz not null,
  recorded_at timestamptz not null default clock_timestamp(),
  dispatched_at timestamptz,
  actor text,
  value double precision,
  channel_id bigint,
  step_number integer,
  trace_id text,
  constraint alert_events_pkey primary key (tenant_id, event_id),
  constraint alert_events_alert_id_fkey foreign key (tenant_id, alert_id) references public.alerts (tenant_id, alert_id),
  constraint alert_events_kind_check check (kind in ('opened', 'acknowledged', 'silenced', 'escalated', 'closed')),
  constraint alert_events_escalated_check check ((kind = 'escalated') = (channel_id is not null and step_number is not null))
);
create index alert_events_pending_idx on public.alert_events (event_id) where dispatched_at is null;
create index alert_events_tenant_id_alert_id_idx on public.alert_events (tenant_id, alert_id, event_id);
create index alert_events_trace_id_idx on public.alert_events (trace_id) where trace_id is not null;
comment on table public.alert_events is 'Everything that happened to an alert, in order; the dispatcher''s queue while dispatched_at is null.';
comment on column public.alert_events.tenant_id is 'Owner.';
comment on column public.alert_events.event_id is 'Number of the event; ascending for each alert.';
comment on column public.alert_events.alert_id is 'Alert.';
comment on column public.alert_events.kind is 'opened, acknowledged, silenced, escalated or closed.';
comment on column public.alert_events.occurred_at is 'When it happened (device time for what a reading caused).';
comment on column public.alert_events.recorded_at is 'When the row was written.';
comment on column public.alert_events.dispatched_at is 'When the dispatcher decided about it; null until then.';
comment on column public.alert_events.actor is 'Who did it; null for the evaluator.';
comment on column public.alert_events.value is 'Reading that caused it.';
comment on column public.alert_events.channel_id is 'Channel an escalation step names.';
comment on column public.alert_events.step_number is 'Escalation step.';
comment on column public.alert_events.trace_id is 'Trace that caused it.';

-- Channels, routes, escalation -------------------------------------------------------------------------------------

create table public.notification_channels (
  tenant_id text not null,
  channel_id bigint generated always as identity,
  name text not null,
  kind text not null,
  config jsonb not null,
  enabled boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint notification_channels_pkey primary key (tenant_id, channel_id),
  constraint notification_channels_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint notification_channels_tenant_id_name_key unique (tenant_id, name),
  constraint notification_channels_kind_check check (kind in ('webhook', 'slack', 'teams', 'pagerduty')),
  constraint notification_channels_config_check check (jsonb_typeof(config) = 'object')
);
comment on table public.notification_channels is 'Where notifications can go.';
comment on column public.notification_channels.tenant_id is 'Owner.';
comment on column public.notification_channels.channel_id is 'Number of the channel.';
comment on column public.notification_channels.name is 'Name for people.';
comment on column public.notification_channels.kind is 'webhook, slack, teams or pagerduty.';
comment on column public.notification_channels.config is 'Address and secret of the channel; only delivery.claim reads it.';
comment on column public.notification_channels.enabled is 'A disabled channel gets nothing; what it misses is recorded in suppressions.';
comment on column public.notification_channels.created_at is 'When the channel was created.';
comment on column public.notification_channels.updated_at is 'When the channel was last changed.';

create table public.notification_routes (
  tenant_id text not null,
  route_id bigint generated always as identity,
  name text not null,
  channel_id bigint not null,
  min_severity text not null default 'info',
  rule_id bigint,
  tag text,
  enabled boolean not null default true,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  constraint notification_routes_pkey primary key (tenant_id, route_id),
  constraint notification_routes_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint notification_routes_channel_id_fkey foreign key (tenant_id, channel_id)
    references public.notification_channels (tenant_id, channel_id),
  constraint notification_routes_rule_id_fkey foreign key (tenant_id, rule_id)
    references public.alert_rules (tenant_id, rule_id) on delete cascade,
  constraint notification_routes_min_severity_check check (min_severity in ('info', 'warning', 'error', 'critical'))
);
create index notification_routes_tenant_id_channel_id_idx on public.notification_routes (tenant_id, channel_id);
comment on table public.notification_routes is 'Which alerts go to which channel; every condition that is set must hold.';
comment on column public.notification_routes.tenant_id is 'Owner.';
comment on column public.notification_routes.route_id is 'Number of the route.';
comment on column public.notification_routes.name is 'Name for people.';
comment on column public.notification_routes.channel_id is 'Where it leads.';
comment on column public.notification_routes.min_severity is 'Least severity that takes this route.';
comment on column public.notification_routes.rule_id is 'Only alerts of this rule.';
comment on column public.notification_routes.tag is 'Only alerts of devices with this tag.';
comment on column public.notification_routes.enabled is 'A disabled route takes nothing.';
comment on column public.notification_routes.created_at is 'When the route was created.';
comment on column public.notification_routes.updated_at is 'When the route was last changed.';

create table public.escalation_steps (
  tenant_id text not null,
  policy_id bigint not null,
  step_number integer not null,
  after_minutes double precision not null,
  channel_id bigint not null,
  constraint escalation_steps_pkey primary key (tenant_id, policy_id, step_number),
  constraint escalation_steps_policy_id_fkey foreign key (tenant_id, policy_id)
    references public.escalation_policies (tenant_id, policy_id) on delete cascade,
  constraint escalation_steps_channel_id_fkey foreign key (tenant_id, channel_id)
    references public.notification_channels (tenant_id, channel_id),
  constraint escalation_steps_step_number_check check (step_number between 1 and 20),
  constraint escalation_steps_after_minutes_check check (after_minutes >= 0 and after_minutes <= 10080)
);
create index escalation_steps_tenant_id_channel_id_idx on public.escalation_steps (tenant_id, channel_id);
comment on table public.escalation_steps is 'The ordered steps of a policy.';
comment on column public.escalation_steps.tenant_id is 'Owner.';
comment on column public.escalation_steps.policy_id is 'Policy.';
comment on column public.escalation_steps.step_number is 'Place in the order, from 1 without gaps.';
comment on column public.escalation_steps.after_minutes is 'Minutes after the alert opened; ascending with step_number.';
comment on column public.escalation_steps.channel_id is 'Channel that is told.';

create table ops.escalations (
  tenant_id text not null,
  alert_id bigint not null,
  policy_id bigint not null,
  step_number integer not null,
  due_at timestamptz not null,
  trace_id text,
  constraint escalations_pkey primary key (tenant_id, alert_id),
  constraint escalations_alert_id_fkey foreign key (tenant_id, alert_id) references public.alerts (tenant_id, alert_id)
);
create index escalations_due_at_idx on ops.escalations (due_at);
comment on table ops.escalations is 'The next escalation step of each alert that waits for one; acknowledging or closing deletes the row.';
comment on column ops.escalations.tenant_id is 'Owner.';
comment on column ops.escalations.alert_id is 'Alert that escalates.';
comment on column ops.escalations.policy_id is 'Policy it follows.';
comment on column ops.escalations.step_number is 'Step that is taken next.';
comment on column ops.escalations.due_at is 'When it is taken.';
comment on column ops.escalations.trace_id is 'Trace of the alert.';

-- Notifications ----------------------------------------------------------------------------------------------------

create table public.notification_jobs (
  tenant_id text not null,
  job_id bigint generated always as identity,
  event_id bigint not null,
  alert_id bigint not null,
  channel_id bigint not null,
  kind text not null,
  state text not null default 'pending',
  run_at timestamptz not null default clock_timestamp(),
  attempts smallint not null default 0,
  max_attempts smallint not null default 8,
  lease_epoch integer not null default 0,
  lease_until timestamptz,
  leased_by text,
  idempotency_key uuid not null default gen_random_uuid(),
  payload jsonb not null,
  subject text not null generated always as (coalesce(payload #>> '{alert,fingerprint}', 'alert:' || alert_id::text)) stored,
  created_at timestamptz not null default clock_timestamp(),
  finished_at timestamptz,
  last_error text,
  trace_id text,
  constraint notification_jobs_pkey primary key (tenant_id, job_id),
  constraint notification_jobs_tenant_id_event_id_channel_id_key unique (tenant_id, event_id, channel_id),
  constraint notification_jobs_event_id_fkey foreign key (tenant_id, event_id) references public.alert_events (tenant_id, event_id),
  constraint notification_jobs_kind_check check (kind in ('opened', 'acknowledged', 'escalated', 'closed')),
  constraint notification_jobs_state_check check (state in ('pending', 'leased', 'delivered', 'dead')),
  constraint notification_jobs_lease_check check ((state = 'leased') = (lease_until is not null and leased_by is not null)),
  constraint notification_jobs_finished_at_check check ((state in ('delivered', 'dead')) = (finished_at is not null))
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_cost_delay = 0);
create index notification_jobs_pending_idx on public.notification_jobs (run_at, job_id) where state = 'pending';
create index notification_jobs_lane_idx on public.notification_jobs (tenant_id, channel_id, run_at, job_id)
  where state = 'pending';
create index notification_jobs_leased_idx on public.notification_jobs (lease_until) where state = 'leased';
create index notification_jobs_live_idx on public.notification_jobs (tenant_id, subject, channel_id, job_id)
  where state in ('pending', 'leased');
create index notification_jobs_alert_id_idx on public.notification_jobs (tenant_id, alert_id, channel_id);
create index notification_jobs_trace_id_idx on public.notification_jobs (trace_id) where trace_id is not null;
create index notification_jobs_finished_at_idx on public.notification_jobs (finished_at) where finished_at is not null;
create index notification_jobs_dead_idx on public.notification_jobs (tenant_id, job_id) where state = 'dead';
comment on table public.notification_jobs is 'One notification: one alert event for one channel, exactly once.';
comment on column public.notification_jobs.tenant_id is 'Owner.';
comment on column public.notification_jobs.job_id is 'Number of the job; jobs of one subject and channel are sent in this order.';
comment on column public.notification_jobs.event_id is 'Alert event it tells of.';
comment on column public.notification_jobs.alert_id is 'Alert it tells of.';
comment on column public.notification_jobs.channel_id is 'Channel it goes to.';
comment on column public.notification_jobs.kind is 'Kind of the alert event.';
comment on column public.notification_jobs.state is 'pending, leased, delivered or dead.';
comment on column public.notification_jobs.run_at is 'Not tried before then.';
comment on column public.notification_jobs.attempts is 'Attempts begun, counted at claim so that a job that kills its worker ends too.';
comment on column public.notification_jobs.max_attempts is 'Attempts after which it is dead.';
comment on column public.notification_jobs.lease_epoch is 'Fence: counts leases; a finish with an older number changes nothing.';
comment on column public.notification_jobs.lease_until is 'End of the current lease.';
comment on column public.notification_jobs.leased_by is 'Worker that holds the lease.';
comment on column public.notification_jobs.idempotency_key is 'Sent with every attempt, so that the receiver can drop a repeat.';
comment on column public.notification_jobs.payload is 'What is told, as of the event.';
comment on column public.notification_jobs.subject is 'What it is about, the alert''s fingerprint: a channel hears of one rule and device in order, over all their alerts.';
comment on column public.notification_jobs.created_at is 'When the dispatcher made it.';
comment on column public.notification_jobs.finished_at is 'When it was delivered or died.';
comment on column public.notification_jobs.last_error is 'What went wrong last.';
comment on column public.notification_jobs.trace_id is 'Trace of the alert event.';

create table public.delivery_attempts (
  tenant_id text not null,
  attempt_id bigint generated always as identity,
  job_id bigint not null,
  channel_id bigint not null,
  attempt smallint not null,
  lease_epoch integer not null,
  worker text not null,
  outcome text not null,
  status_code integer,
  error text,
  started_at timestamptz,
  finished_at timestamptz not null default clock_timestamp(),
  duration_ms double precision,
  trace_id text,
  constraint delivery_attempts_pkey primary key (tenant_id, attempt_id),
  constraint delivery_attempts_job_id_fkey foreign key (tenant_id, job_id) references public.notification_jobs (tenant_id, job_id),
  constraint delivery_attempts_tenant_id_job_id_lease_epoch_key unique (tenant_id, job_id, lease_epoch),
  constraint delivery_attempts_outcome_check check (outcome in ('delivered', 'retry', 'refused', 'unknown'))
);
create index delivery_attempts_trace_id_idx on public.delivery_attempts (trace_id) where trace_id is not null;
create index delivery_attempts_finished_at_idx on public.delivery_attempts (finished_at);
comment on table public.delivery_attempts is 'Every try to deliver a job and how it ended.';
comment on column public.delivery_attempts.tenant_id is 'Owner.';
comment on column public.delivery_attempts.attempt_id is 'Number of the attempt over all jobs.';
comment on column public.delivery_attempts.job_id is 'Job.';
comment on column public.delivery_attempts.channel_id is 'Channel.';
comment on column public.delivery_attempts.attempt is 'Number of the attempt within the job, from 1.';
comment on column public.delivery_attempts.lease_epoch is 'Lease under which it ran.';
comment on column public.delivery_attempts.worker is 'Worker that ran it.';
comment on column public.delivery_attempts.outcome is 'delivered, retry, refused, or unknown: the lease ran out and nobody knows whether the request was sent.';
comment on column public.delivery_attempts.status_code is 'HTTP status of the answer.';
comment on column public.delivery_attempts.error is 'What went wrong, without secrets.';
comment on column public.delivery_attempts.started_at is 'When the request left.';
comment on column public.delivery_attempts.finished_at is 'When the outcome was recorded.';
comment on column public.delivery_attempts.duration_ms is 'Milliseconds from request to answer.';
comment on column public.delivery_attempts.trace_id is 'Trace of the job.';

create table public.suppressions (
  tenant_id text not null,
  suppression_id bigint generated always as identity,
  event_id bigint not null,
  alert_id bigint not null,
  channel_id bigint,
  reason text not null,
  recorded_at timestamptz not null default clock_timestamp(),
  trace_id text,
  constraint suppressions_pkey primary key (tenant_id, suppression_id),
  constraint suppressions_event_id_fkey foreign key (tenant_id, event_id) references public.alert_events (tenant_id, event_id),
  constraint suppressions_reason_check check (reason in ('no_route', 'silenced', 'channel_disabled', 'channel_deleted', 'not_notified'))
);
create index suppressions_tenant_id_alert_id_idx on public.suppressions (tenant_id, alert_id);
create index suppressions_tenant_id_event_id_idx on public.suppressions (tenant_id, event_id);
create index suppressions_trace_id_idx on public.suppressions (trace_id) where trace_id is not null;
comment on table public.suppressions is 'Why nobody was told: each alert event that did not become a job for a channel, with the reason.';
comment on column public.suppressions.tenant_id is 'Owner.';
comment on column public.suppressions.suppression_id is 'Number of the row.';
comment on column public.suppressions.event_id is 'Alert event.';
comment on column public.suppressions.alert_id is 'Alert.';
comment on column public.suppressions.channel_id is 'Channel that was not told; null when no route led anywhere.';
comment on column public.suppressions.reason is 'no_route, silenced, channel_disabled, channel_deleted, or not_notified: the channel never heard of the opening.';
comment on column public.suppressions.recorded_at is 'When it was decided.';
comment on column public.suppressions.trace_id is 'Trace of the alert event.';

create table delivery.lanes (
  tenant_id text not null,
  channel_id bigint not null,
  paused_until timestamptz not null,
  constraint lanes_pkey primary key (tenant_id, channel_id)
);
comment on table delivery.lanes is 'Channels that asked for a pause (Retry-After); nothing is sent to them before paused_until.';
comment on column delivery.lanes.tenant_id is 'Owner.';
comment on column delivery.lanes.channel_id is 'Channel.';
comment on column delivery.lanes.paused_until is 'End of the pause.';

-- Audit ------------------------------------------------------------------------------------------------------------

create table public.audit_log (
  tenant_id text not null default 'system',
  timestamp timestamptz not null,
  event_id uuid not null,
  recorded_at timestamptz not null default clock_timestamp(),
  event_type text not null,
  category text not null,
  severity text not null default 'info',
  entity_type text,
  entity_id text,
  entity_name text,
  action text not null,
  message text not null,
  details jsonb not null default '{}',
  source_service text not null,
  actor_type text,
  actor_id text,
  actor_name text,
  ip_address inet,
  trace_id text,
  duration_ms double precision,
  constraint audit_log_pkey primary key (tenant_id, timestamp, event_id),
  constraint audit_log_severity_check check (severity in ('debug', 'info', 'warning', 'error', 'critical')),
  constraint audit_log_event_type_check check (event_type = category || '.' || action)
) partition by range (timestamp);
create index audit_log_timestamp_idx on public.audit_log (timestamp);
create index audit_log_auth_timestamp_idx on public.audit_log (timestamp) where event_type like 'auth.%';
create index audit_log_tenant_id_event_type_idx on public.audit_log (tenant_id, event_type, timestamp);
create index audit_log_tenant_id_entity_idx on public.audit_log (tenant_id, entity_type, entity_id, timestamp) where entity_id is not null;
create index audit_log_trace_id_idx on public.audit_log (trace_id) where trace_id is not null;
create table public.audit_log_default partition of public.audit_log default;
comment on table public.audit_log is 'The audit trail, one row an event, partitioned by month of timestamp; rows are only ever added.';
comment on column public.audit_log.tenant_id is 'Owner; ''system'' for events without a tenant.';
comment on column public.audit_log.timestamp is 'When it happened, fixed by the producer.';
comment on column public.audit_log.event_id is 'UUIDv7 from the producer; sent again unchanged when a write is repeated.';
comment on column public.audit_log.recorded_at is 'When the row was written, by the database''s clock.';
comment on column public.audit_log.event_type is 'category.action, from audit.event_types.';
comment on column public.audit_log.category is 'What part of Pulse it concerns: auth, device, alert, …';
comment on column public.audit_log.severity is 'debug, info, warning, error or critical.';
comment on column public.audit_log.entity_type is 'Kind of thing it is about.';
comment on column public.audit_log.entity_id is 'Which one.';
comment on column public.audit_log.entity_name is 'Its name at the time.';
comment on column public.audit_log.action is 'What happened, past tense.';
comment on column public.audit_log.message is 'One sentence for people.';
comment on column public.audit_log.details is 'The particulars, without secrets.';
comment on column public.audit_log.source_service is 'Service that wrote it.';
comment on column public.audit_log.actor_type is 'user, device, service or anonymous.';
comment on column public.audit_log.actor_id is 'Who did it.';
comment on column public.audit_log.actor_name is 'Name of who did it.';
comment on column public.audit_log.ip_address is 'Client address behind trusted proxies.';
comment on column public.audit_log.trace_id is 'Trace it belongs to.';
comment on column public.audit_log.duration_ms is 'How long it took, milliseconds.';
comment on table public.audit_log_default is 'Events of months whose partition does not exist yet; ops.ensure_partitions moves them.';

-- Pulse watching itself --------------------------------------------------------------------------------------------

create table public.service_health (
  tenant_id text not null default 'system',
  service text not null,
  url text not null,
  status text not null,
  failures integer not null default 0,
  checked_at timestamptz not null,
  changed_at timestamptz not null,
  latency_ms double precision,
  error text,
  constraint service_health_pkey primary key (tenant_id, service),
  constraint service_health_status_check check (status in ('up', 'down'))
);
comment on table public.service_health is 'What the health monitor last saw of each service.';
comment on column public.service_health.tenant_id is 'Always ''system''.';
comment on column public.service_health.service is 'Service.';
comment on column public.service_health.url is 'Where it was asked.';
comment on column public.service_health.status is 'up or down.';
comment on column public.service_health.failures is 'Failed checks in a row.';
comment on column public.service_health.checked_at is 'When it was last asked.';
comment on column public.service_health.changed_at is 'When status last changed.';
comment on column public.service_health.latency_ms is 'Milliseconds the answer took.';
comment on column public.service_health.error is 'Why it counts as failed.';

create table public.service_metrics (
  tenant_id text not null default 'system',
  recorded_at timestamptz not null,
  service text not null,
  name text not null,
  value double precision not null,
  constraint service_metrics_pkey primary key (tenant_id, recorded_at, service, name)
);
create index service_metrics_service_idx on public.service_metrics (tenant_id, service, name, recorded_at);
comment on table public.service_metrics is 'Counters of the services over time, as the metrics collector read them.';
comment on column public.service_metrics.tenant_id is 'Always ''system''.';
comment on column public.service_metrics.recorded_at is 'When the collector read it.';
comment on column public.service_metrics.service is 'Service.';
comment on column public.service_metrics.name is 'Counter.';
comment on column public.service_metrics.value is 'Value at that moment, since the start of the process.';
