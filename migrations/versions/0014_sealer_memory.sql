-- Whether the log was ever begun must outlive its tables: a database without blocks is a new one only when this is null.
alter table public.installation add column log_begun_at timestamptz;
comment on column public.installation.log_begun_at is
  'When the first block of the audit trail was sealed here; null: never, so a sealer without a key may make one.';
update public.installation set log_begun_at = (
  select min(t) from (select min(b.sealed_at) from audit.blocks b union all select min(k.first_used_at) from audit.signing_keys k) x (t)
);

-- What the ops worker found when it compared the catalog with the recorded SQL layer.
alter table audit.verifications drop constraint verifications_scope_check;
alter table audit.verifications add constraint verifications_scope_check check (scope in ('day', 'all', 'layer'));
comment on table audit.verifications is
  'What the ops worker found when it last verified the sealed log and the SQL layer by itself.';
comment on column audit.verifications.scope is
  'day: rows sealed within the last day; all: every row; layer: functions, triggers, policies, grants and roles.';
comment on column audit.verifications.row_count is 'Rows hashed anew; 0 for the layer.';
comment on column audit.verifications.fault_count is 'Faults found; 0: everything is as it was sealed or applied.';
