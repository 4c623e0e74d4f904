create view metrics.attack_findings_last_day as
with counted as (
  select kind, count(*) as findings
  from (
    select kind
    from audit.attack_findings
    where detected_at > core.now() - interval '1 day'
    order by detected_at desc
    limit 10000
  ) newest
  group by kind
)
select t.kind, coalesce(c.findings, 0) as value
from audit.attack_thresholds t
left join counted c on c.kind = t.kind;

comment on view metrics.attack_findings_last_day is
  'Attacks on accounts found within the last day, including those that are over, by kind, counting the newest 10,000.';
