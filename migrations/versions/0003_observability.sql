-- What the story of a trace and the metrics need of the tables.

-- The transaction that wrote an event is the pass that decided it. Older events keep null: nobody knows any more.
alter table public.alert_events add column decided_at timestamptz;
alter table public.alert_events alter column decided_at set default now();
comment on column public.alert_events.decided_at is 'When the transaction that decided it began; null for events older than the column.';

-- How long it takes from a reading to a notification is told by rows: the evaluator has the time at hand in its inbox, and
-- nobody has to look for the reading again.
alter table public.alert_events add column reading_received_at timestamptz;
comment on column public.alert_events.reading_received_at is 'When the reading that caused it arrived; null when none did, and for events older than the column.';

-- Where two ids have most of the rows, statistics would say that any id has, and the plan of a trace would leave the index.
do $$
declare
  v_partition regclass;
begin
  for v_partition in
    select inhrelid::regclass
    from pg_inherits
    where inhparent in ('public.telemetry'::regclass, 'public.audit_log'::regclass)
  loop
    execute format('alter table %s alter column trace_id set (n_distinct = -1)', v_partition);
  end loop;
end
$$;
