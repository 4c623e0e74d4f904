-- Tenants share the passes of the evaluator by their weight.
alter table public.tenant_limits
  drop constraint tenant_limits_limit_name_check,
  add constraint tenant_limits_limit_name_check check (
    limit_name in (
      'rules', 'devices', 'series', 'channels', 'alerts_open', 'transitions_per_minute', 'evaluation_weight'
    )
  ),
  drop constraint tenant_limits_value_check,
  add constraint tenant_limits_value_check check (
    -- Without "between", which Postgres reads back from a dump as another expression.
    value >= 0 and value <= 1000000000000 and (limit_name <> 'evaluation_weight' or value >= 1 and value <= 100)
  );
insert into public.tenant_limits (tenant_id, limit_name, value) values ('system', 'evaluation_weight', 1);

-- Each reading paid for this index, and only a scrape used it. The primary key shows the oldest reading of each lane.
drop index evaluator.inbox_arrival_idx;

-- What a pass does to the alert of a rule and device. Functions of the evaluator pass arrays of this type to each other.
create type evaluator.transition as (
  kind text,
  tenant_id text,
  rule_id bigint,
  device_id text,
  n integer,
  at timestamptz,
  value double precision,
  received_at timestamptz,
  trace_id text,
  changes integer,
  closed_at timestamptz,
  close_value double precision,
  close_received_at timestamptz,
  close_trace_id text
);
comment on type evaluator.transition is
  'A change of the alert of a rule and device: open, close, flapping, or late, which opens and closes.';
comment on column evaluator.transition.n is 'Order among the transitions of the rule and device in one pass.';
comment on column evaluator.transition.at is 'Evaluation time of the change.';
comment on column evaluator.transition.value is 'Value of the reading that caused it, or the last value when a timer did.';
comment on column evaluator.transition.received_at is 'Arrival of that reading; null for a timer.';
comment on column evaluator.transition.changes is 'Number of transitions that a flapping alert stands for, else null.';
comment on column evaluator.transition.closed_at is 'For the kind late: when the alert closed.';
