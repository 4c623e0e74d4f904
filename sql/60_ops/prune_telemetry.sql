-- Until commit a dropped partition keeps everybody out of telemetry, so this is a transaction of its own, the drop comes
-- last, and there is one drop a call.
create function ops.prune_telemetry(p_telemetry_days integer, p_limit integer default 1000)
returns table (what text, removed bigint)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
set lock_timeout = '300ms'
as $$
declare
  v_before timestamptz := core.now() - make_interval(days => p_telemetry_days);
  v_partition text;
  v_removed jsonb;
begin
  -- ops.ensure_partitions keeps 8 days back, as readings of the last 7 days are taken.
  if p_telemetry_days < 9 then
    raise exception using errcode = 'PU422', message = 'telemetry is kept for 9 days at least';
  end if;
  perform ops._await_lock('partitions');
  v_removed := jsonb_build_object('telemetry', ops._prune_stray_telemetry(p_before => v_before, p_limit => p_limit));
  v_partition := ops._drop_old_telemetry(p_before => v_before);
  v_removed := v_removed || jsonb_build_object('telemetry_partitions', num_nonnulls(v_partition));
  return query
    select r.*
    from ops._report_pruned(
      v_removed, 'Readings past their retention were removed.', jsonb_build_object('partition', v_partition)) r;
end
$$;

comment on function ops.prune_telemetry(integer, integer) is
  'Remove readings older than so many days: the oldest daily partition, one a call, and at most p_limit rows that '
  'never had one. Gives the numbers removed, nothing when done; a partition that somebody uses stays until a later '
  'call. Call it in a transaction of its own, for a drop stops writers and readers of telemetry until commit. Raises '
  '55P03 when another copy is at it for long.';
