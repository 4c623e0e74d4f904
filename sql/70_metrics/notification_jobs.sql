-- Finished jobs are history and are not counted. Dead ones have a metric of their own.
create view metrics.notification_jobs as
with by_kind as (
  select
    coalesce(c.kind, 'deleted') as channel_kind,
    sum(j.due) as due,
    sum(j.scheduled) as scheduled,
    sum(j.leased) as leased
  from delivery._unfinished_jobs(core.now(), 250000) j
  left join public.notification_channels c on c.tenant_id = j.tenant_id and c.channel_id = j.channel_id
  group by 1
)
select counted.state, known.channel_kind, coalesce(counted.jobs, 0)::bigint as value
from (select k.kind from delivery._channel_kinds() k union all values ('deleted')) known (channel_kind)
left join by_kind k on k.channel_kind = known.channel_kind
cross join lateral (values ('due', k.due), ('scheduled', k.scheduled), ('leased', k.leased)) counted (state, jobs);

comment on view metrics.notification_jobs is
  'Unfinished notification jobs: due, scheduled for later or leased to a worker, by kind of channel, counting up to '
  '250,000 that are not leased.';
