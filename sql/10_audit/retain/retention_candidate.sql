create function audit.retention_candidate(p_days integer)
returns table (segment date, partition_name text, tree_size bigint)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select m.segment, m.partition_name, coalesce((select max(c.tree_size) from audit.checkpoints c), 0)
  from audit._overdue_months(p_days) m
  where m.obstacle is null
  order by m.segment
  limit 1;
end;

comment on function audit.retention_candidate(integer) is
  'The oldest month that may be dropped: a partition of its own, over for so many days, sealed, under no hold, in a log not reported broken; and the '
  'size of the signed tree. No row when there is none.';
