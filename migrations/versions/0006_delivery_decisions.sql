-- What delivery must remember beyond a pause: why a channel waits, how far it has recovered, why a notification was given up,
-- which silences outlive their alert, and which installation this is.

-- First, and under this lock until the end: an alert is older than created_at below exactly when it was there before.
lock table public.alerts in access exclusive mode;

create table public.installation (
  is_singleton boolean not null default true,
  installation_id uuid not null default gen_random_uuid(),
  created_at timestamptz not null default clock_timestamp(),
  constraint installation_pkey primary key (is_singleton),
  constraint installation_is_singleton_check check (is_singleton)
);
comment on table public.installation is 'The identity of this installation: one row.';
comment on column public.installation.is_singleton is 'Always true.';
comment on column public.installation.installation_id is 'Random id; it distinguishes installations that share a receiver.';
comment on column public.installation.created_at is 'When the id was made; incidents of alerts recorded before keep a key without it.';
insert into public.installation (is_singleton) values (true);

create table evaluator.silences (
  tenant_id text not null,
  fingerprint text not null,
  silenced_until timestamptz not null,
  constraint silences_pkey primary key (tenant_id, fingerprint),
  constraint silences_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id)
);
comment on table evaluator.silences is 'Silences by fingerprint: an alert that reopens before the end of a silence is silenced too.';
comment on column evaluator.silences.tenant_id is 'Owner.';
comment on column evaluator.silences.fingerprint is 'Fingerprint of the alerts.';
comment on column evaluator.silences.silenced_until is 'End of the silence.';
insert into evaluator.silences (tenant_id, fingerprint, silenced_until)
select a.tenant_id, a.fingerprint, a.silenced_until
from public.alerts a
where a.status <> 'closed' and a.silenced_until > now();

-- The steps of an alert count from its recorded opening, plus this.
alter table ops.escalations add column delayed_by interval not null default '0';
comment on column ops.escalations.delayed_by is 'How much later than counted from the opening the steps come: after a silence, or when the policy was attached late.';

alter table public.alert_events add column policy_id bigint;
-- A change of the policy must not begin anew with alerts that have gone through its steps.
update public.alert_events e
set policy_id = r.policy_id
from public.alerts a
join public.alert_rules r on r.tenant_id = a.tenant_id and r.rule_id = a.rule_id
where e.kind = 'escalated' and e.tenant_id = a.tenant_id and e.alert_id = a.alert_id and a.status <> 'closed';
comment on column public.alert_events.policy_id is 'Escalation policy of the step; null for other events, and for steps of ended alerts from before the column.';

alter table delivery.lanes
  add column paused_at timestamptz,
  add column reason text,
  add column limits integer not null default 0,
  add column deliveries integer not null default 0,
  add column lifted_at timestamptz;
comment on table delivery.lanes is 'Channels that were paused: nothing is sent before paused_until, then one probe, then step by step as much as before.';
comment on column delivery.lanes.paused_at is 'When the latest pause was asked for.';
comment on column delivery.lanes.reason is 'Answer that asked for the pause.';
comment on column delivery.lanes.limits is 'Pauses in a row without a delivery in between; 0: the channel is open.';
comment on column delivery.lanes.deliveries is 'Deliveries since the pause ended: as many requests may be in flight, at least one.';
comment on column delivery.lanes.lifted_at is 'When a person lifted the pause; answers to earlier requests pause no more.';

alter table public.notification_channels add column disabled_reason text;
comment on column public.notification_channels.disabled_reason is 'Why Pulse disabled the channel; null when a person did, or when it is enabled.';

alter table public.notification_jobs
  add column route_id bigint,
  add column leased_at timestamptz,
  add column redriven_at timestamptz,
  add column dead_reason text,
  add constraint notification_jobs_dead_reason_check check (dead_reason is null or (state = 'dead' and dead_reason in (
    'refused', 'exhausted', 'limited', 'gone', 'channel_disabled', 'channel_deleted', 'superseded')));
comment on column public.notification_jobs.route_id is 'Route that led to the channel; null for the end of an alert, an escalation, and older jobs.';
comment on column public.notification_jobs.leased_at is 'When the latest lease began.';
comment on column public.notification_jobs.redriven_at is 'When it was last put back in the queue; null when it never was.';
comment on column public.notification_jobs.dead_reason is 'Why it was given up: refused, exhausted, limited for too long, gone (410), channel_disabled, channel_deleted, or superseded: the beginning never arrived, or the alert was no longer open. Null for jobs that died before the column.';

alter table public.delivery_attempts drop constraint delivery_attempts_outcome_check;
alter table public.delivery_attempts add constraint delivery_attempts_outcome_check
  check (outcome in ('delivered', 'retry', 'limited', 'refused', 'gone', 'unknown'));
comment on column public.delivery_attempts.outcome is 'delivered, retry, limited (the receiver asked to wait), refused, gone (410), or unknown: the lease ran out, and the request may have been sent.';
create index delivery_attempts_channel_id_idx on public.delivery_attempts (tenant_id, channel_id, outcome, attempt_id);

alter table public.suppressions add column route_id bigint;
alter table public.suppressions drop constraint suppressions_reason_check;
alter table public.suppressions add constraint suppressions_reason_check check (reason in (
  'no_route', 'route_disabled', 'other_rule', 'other_tag', 'below_severity', 'silenced', 'channel_disabled', 'channel_deleted',
  'not_notified', 'other_step', 'alert_acknowledged', 'alert_closed', 'not_announced'));
comment on column public.suppressions.route_id is 'Route that came nearest to leading to the channel; null when none leads there.';
comment on column public.suppressions.reason is 'Why the channel was not notified; docs/delivery.md explains each reason.';
