create view metrics.attack_findings as
select
  t.kind,
  s.state,
  case s.state
    when 'open' then (select count(*) from audit.attack_findings f where f.kind = t.kind and f.closed_at is null)
    else (
      select count(*)
      from audit.attack_findings f
      where f.kind = t.kind and f.detected_at > core.now() - interval '1 day'
    )
  end as value
from audit.attack_thresholds t
cross join (values ('open'), ('last_day')) as s (state);

comment on view metrics.attack_findings is
  'Attacks on accounts by kind: open while they go on, last_day for those found within 24 hours.';
