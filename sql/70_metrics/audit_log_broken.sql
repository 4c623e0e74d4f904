-- The alert that the sealer and the retention open, and that a person closes.
create view metrics.audit_log_broken as
select exists (
  select from public.alerts where tenant_id = 'system' and fingerprint = 'audit:log' and status <> 'closed'
) as value;

comment on view metrics.audit_log_broken is
  'Whether the sealed log contradicts what was signed, 1 until a person has closed the alert that says so.';
