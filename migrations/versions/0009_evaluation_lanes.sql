-- One tenant's work must not hold up another's: the rights to evaluate, the queues' keys and their claims begin with the tenant.

create table evaluator.lanes (
  tenant_id text not null,
  shard smallint not null,
  constraint lanes_pkey primary key (tenant_id, shard),
  constraint lanes_shard_check check (shard between 0 and 15)
);
comment on table evaluator.lanes is
  'Sixteen rows a tenant; the lock of a row is the right to evaluate the readings of that shard of the tenant''s devices.';
comment on column evaluator.lanes.tenant_id is 'Owner.';
comment on column evaluator.lanes.shard is 'Hash of tenant and device, 0 to 15.';
insert into evaluator.lanes (tenant_id, shard)
select t.tenant_id, s.shard from public.tenants t cross join generate_series(0, 15) as s (shard);
drop table evaluator.shards;

alter table evaluator.inbox
  drop constraint inbox_pkey,
  add constraint inbox_pkey primary key (tenant_id, shard, arrival);
create index inbox_arrival_idx on evaluator.inbox (arrival);

drop index public.rule_state_shard_due_at_idx;
create index rule_state_due_at_idx on public.rule_state (due_at) where due_at is not null;
create index rule_state_tenant_id_shard_due_at_idx on public.rule_state (tenant_id, shard, due_at) where due_at is not null;

create index alert_events_tenant_id_pending_idx on public.alert_events (tenant_id, event_id) where dispatched_at is null;
create index escalations_tenant_id_due_at_idx on ops.escalations (tenant_id, due_at);

alter table public.alert_events
  add column changes integer,
  drop constraint alert_events_kind_check,
  add constraint alert_events_kind_check
    check (kind in ('opened', 'flapping', 'acknowledged', 'silenced', 'escalated', 'updated', 'closed')),
  add constraint alert_events_changes_check check ((kind = 'flapping') = (changes is not null));
comment on column public.alert_events.kind is 'opened, flapping, acknowledged, silenced, escalated, updated or closed.';
comment on column public.alert_events.changes is
  'For the kind flapping: number of openings and closings of one pass that the alert stands for; else null.';
