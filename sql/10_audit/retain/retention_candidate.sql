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
  'Return the oldest month that may be dropped, and the size of the signed tree: a partition of its own, past its '
  'retention, sealed, under no hold, in a log that is not reported broken. Returns no row if there is none.';
