-- Evaluation time is least(timestamp, received_at): a clock that is ahead cannot outrun arrival.

-- Readings: several values at one instant ---------------------------------------------------------------------------

alter table public.telemetry add column overwrites smallint not null default 0;
comment on column public.telemetry.overwrites is
  'How many requests replaced the value of this instant; the row holds the value that arrived last.';
comment on column public.telemetry.received_at is 'When the request arrived, by the database''s clock.';

alter table public.device_state add column newest_before timestamptz;
comment on table public.device_state is 'The newest reading of each device and metric, by evaluation time.';
comment on column public.device_state.newest_before is
  'Evaluation time of the newest reading before the request that wrote this row; null when there was none.';

alter table public.devices add column first_reading_id bigint not null default 0;
comment on column public.devices.first_reading_id is
  'Readings with a smaller reading_id belong to a deleted device of the same name.';

-- The inbox: the order in which the readings of one device and metric count ------------------------------------------

create sequence evaluator.inbox_arrival_seq as bigint;
comment on sequence evaluator.inbox_arrival_seq is 'Order in which readings count.';
alter table evaluator.inbox add column arrival bigint, add column newest_before timestamptz;
update evaluator.inbox i
set arrival = i.reading_id,
  newest_before = (
    select max(least(t.timestamp, t.received_at))
    from public.telemetry t
    where t.tenant_id = i.tenant_id and t.device_id = i.device_id and t.metric = i.metric
      and t.timestamp > least(i.timestamp, i.received_at) and t.reading_id < i.reading_id);
select setval('evaluator.inbox_arrival_seq', greatest(1, (select last_value from public.telemetry_reading_id_seq)));
alter table evaluator.inbox
  alter column arrival set default nextval('evaluator.inbox_arrival_seq'),
  alter column arrival set not null,
  drop constraint inbox_pkey,
  add constraint inbox_pkey primary key (shard, arrival);
comment on column evaluator.inbox.arrival is
  'Order in which readings count; for one device and metric it is the order in which their requests commit.';
comment on column evaluator.inbox.newest_before is
  'Evaluation time of the newest reading of the device and metric before this one; null when there was none.';
comment on column evaluator.inbox.reading_id is 'Number of the reading in telemetry.';

-- Pairs of rule and device -------------------------------------------------------------------------------------------

-- Timers count from arrival: a device whose clock is slow must not open early, one whose clock is ahead not late.
update public.rule_state s
set due_at = t.received_at + make_interval(secs => r.for_seconds)
from public.alert_rules r, public.telemetry t
where r.tenant_id = s.tenant_id and r.rule_id = s.rule_id and s.due_at is not null
  and t.tenant_id = s.tenant_id and t.device_id = s.device_id and t.metric = r.metric and t.timestamp = s.since;

-- A clock that was ahead may have left times that have not come yet.
update public.rule_state set since = least(since, now()), last_timestamp = least(last_timestamp, now())
where since > now() or last_timestamp > now();
comment on column public.rule_state.since is 'Evaluation time of the first reading of the unbroken breach.';
comment on column public.rule_state.last_timestamp is 'Evaluation time of the newest reading evaluated.';
comment on column public.rule_state.due_at is
  'When a pending breach opens by the server''s clock: for_seconds after the arrival of its first reading.';

alter table public.alert_rules add column disabled_reason text;
comment on column public.alert_rules.disabled_reason is
  'Why Pulse disabled the rule; null for a rule that is enabled or that a person disabled.';

-- Alerts -------------------------------------------------------------------------------------------------------------

alter table public.alerts add column device_name text;
update public.alerts a
set device_name = d.name
from public.devices d
where d.tenant_id = a.tenant_id and d.device_id = a.device_id;
update public.alerts set opened_at = recorded_at where status <> 'closed' and opened_at > recorded_at;
update public.alerts set closed_at = opened_at where closed_at < opened_at;
alter table public.alerts add constraint alerts_closed_at_order_check check (closed_at >= opened_at);
create index alerts_tenant_id_fingerprint_closed_at_idx on public.alerts (tenant_id, fingerprint, closed_at)
  where status = 'closed';
comment on column public.alerts.device_name is 'The device''s name when the alert opened; it outlives the device.';
comment on column public.alerts.rule_name is 'The rule''s name; it follows the rule until the alert closes.';
comment on column public.alerts.severity is 'The rule''s severity; it follows the rule until the alert closes.';
comment on column public.alerts.opened_at is
  'When it opened, in the device''s time, but never later than the arrival of its reading.';

alter table public.alert_events add column message text;
comment on column public.alert_events.message is
  'One sentence about the event; null when the alert''s message says all, and for events older than the column.';
alter table public.alert_events drop constraint alert_events_kind_check;
alter table public.alert_events add constraint alert_events_kind_check
  check (kind in ('opened', 'acknowledged', 'silenced', 'escalated', 'updated', 'closed'));
comment on column public.alert_events.kind is 'opened, acknowledged, silenced, escalated, updated or closed.';
alter table public.notification_jobs drop constraint notification_jobs_kind_check;
alter table public.notification_jobs add constraint notification_jobs_kind_check
  check (kind in ('opened', 'acknowledged', 'escalated', 'updated', 'closed'));
