-- Advisory locks are open to every login: a reader of metrics could hold the one that gates notifications. The rows of this
-- table are locked by functions of the owner only.
create table ops.work_locks (
  name text,
  constraint work_locks_pkey primary key (name)
);
comment on table ops.work_locks is 'One row for each kind of work that one session at a time does; the row is only locked, never changed.';
comment on column ops.work_locks.name is 'Kind of work.';
insert into ops.work_locks (name)
values
  ('audit_epoch'), ('audit_retention'), ('detect_attacks'), ('dispatch'), ('partitions'), ('prune'), ('service_metrics');
