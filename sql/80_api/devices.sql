create view api.devices as
select
  d.device_id,
  d.name,
  d.tags,
  d.is_gateway,
  d.enabled,
  d.token_hash is not null as has_token,
  (
    select max(s.received_at)
    from public.device_state s
    where s.tenant_id = d.tenant_id and s.device_id = d.device_id
  ) as last_seen_at,
  d.created_at,
  d.updated_at
from public.devices d
where d.tenant_id = core.current_tenant();

comment on view api.devices is 'Devices of the current tenant with the arrival of their newest reading, without tokens.';
