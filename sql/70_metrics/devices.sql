-- By the newest reading of any metric: online within 5 minutes, late within an hour, offline beyond. A gateway that
-- reports only for other devices has no reading of its own. The cost follows the size of the fleet, not its history.
create view metrics.devices as
with seen as (
  select tenant_id, device_id, max(received_at) as received_at
  from public.device_state
  group by tenant_id, device_id
),
counted as (
  select
    case
      when not d.enabled then 'disabled'
      when s.received_at is null and d.is_gateway then 'gateway'
      when s.received_at is null then 'never_seen'
      when s.received_at > now() - interval '5 minutes' then 'online'
      when s.received_at > now() - interval '1 hour' then 'late'
      else 'offline'
    end as status,
    count(*) as devices
  from public.devices d
  left join seen s on s.tenant_id = d.tenant_id and s.device_id = d.device_id
  group by 1
)
select known.status, coalesce(c.devices, 0) as value
from (values ('online'), ('late'), ('offline'), ('never_seen'), ('gateway'), ('disabled')) known (status)
left join counted c on c.status = known.status;

comment on view metrics.devices is
  'Devices by status: online (reading within 5 minutes), late (within an hour), offline, never_seen, disabled, or '
  'gateway (sends no readings of its own).';
