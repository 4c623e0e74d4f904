create view metrics.channels_paused as
select known.channel_kind, count(p.channel_id) as value
from delivery._channel_kinds() known (channel_kind)
left join (
  select c.kind, p.channel_id
  from delivery.lanes p
  join public.notification_channels c on c.tenant_id = p.tenant_id and c.channel_id = p.channel_id
  where p.paused_until > core.now()
) p on p.kind = known.channel_kind
group by known.channel_kind;

comment on view metrics.channels_paused is
  'Channels that send nothing now, because their receiver asked to wait or does not answer in time, by kind.';
