-- The sealer and the retention open this alert, and a person closes it.
create view metrics.audit_log_broken as
select exists (
  select from public.alerts where tenant_id = 'system' and fingerprint = 'audit:log' and status <> 'closed'
) as value;

comment on view metrics.audit_log_broken is
  '1 if the sealed log contradicts its signatures, until a person closes the alert about it.';
