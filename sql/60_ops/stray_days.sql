-- Names the default partitions, because a query of the parent would read every partition to find these rows.
create view ops.stray_days as
select 'telemetry' as table_name, date_trunc('day', t.timestamp) as day, count(*) as row_count
from public.telemetry_default t
group by 2
union all
select 'audit_log', date_trunc('day', a.timestamp), count(*)
from public.audit_log_default a
group by 2
order by 1, 2;

comment on view ops.stray_days is
  'Rows in default partitions by table and day. The partition of such a day did not exist when its rows came.';
