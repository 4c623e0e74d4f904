create view api.api_keys as
select
  k.key_id,
  k.name,
  k.role,
  k.scopes,
  k.created_at,
  k.created_by,
  k.expires_at,
  u.last_used_at,
  k.revoked_at,
  k.revoked_by
from public.api_keys k
left join ingest.api_key_uses u on u.tenant_id = k.tenant_id and u.key_id = k.key_id
where k.tenant_id = core.current_tenant();

comment on view api.api_keys is 'API keys of the current tenant, including expired ones, without the keys themselves.';
