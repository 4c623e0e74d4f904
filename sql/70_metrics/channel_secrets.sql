create view metrics.channel_secrets as
select known.protection, count(c.is_sealed) as value
from (values ('sealed', true), ('plain', false)) known (protection, is_sealed)
left join (
  select not exists (
    select from jsonb_each(c.config) m where not delivery._is_sealed(m.value #>> '{}')
  ) as is_sealed
  from public.notification_channels c
) c on c.is_sealed = known.is_sealed
group by known.protection;

comment on view metrics.channel_secrets is
  'Channels by the protection of their secrets: sealed for the delivery worker, or plain text.';
