-- Every partition inherits the row trigger of audit_log, but no trigger on TRUNCATE.
create function audit._guard_partition(p_partition regclass) returns void
language plpgsql
security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  if not exists (
    select from pg_trigger where tgrelid = p_partition and tgname = 'audit_log_no_truncate'
  ) then
    execute format(
      'create trigger audit_log_no_truncate before truncate on %s for each statement execute function audit._refuse_change()',
      p_partition
    );
  end if;
end
$$;

comment on function audit._guard_partition(regclass) is 'Make a partition of audit_log refuse TRUNCATE. Safe to repeat.';
