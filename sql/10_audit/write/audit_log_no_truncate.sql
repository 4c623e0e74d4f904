do $$
begin
  perform audit._guard_partition(relid) from pg_partition_tree('public.audit_log');
end
$$;

comment on trigger audit_log_no_truncate on public.audit_log is
  'Refuses TRUNCATE. audit._guard_partition puts the same trigger on each partition.';
