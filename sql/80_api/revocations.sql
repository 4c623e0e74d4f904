create view api.revocations as
select
  r.revocation_id,
  r.subject,
  r.session,
  r.token_id,
  r.issued_before,
  r.reason,
  r.created_at,
  r.created_by,
  r.expires_at
from public.revocations r
where r.tenant_id = core.current_tenant() and r.expires_at > core.now();

comment on view api.revocations is 'Revocations of user tokens in force for the current tenant.';
