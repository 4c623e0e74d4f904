-- A dropped partition locks telemetry for all sessions until commit. So each call is a transaction of its own, drops one
-- partition, and drops it last.
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
  -- ops.ensure_partitions keeps partitions from 8 days back, because readings of the last 7 days are accepted.
  if p_telemetry_days < 9 then
    raise exception using errcode = 'PU422', message = 'telemetry must be kept for at least 9 days';
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
  'Remove readings older than p_telemetry_days: the oldest daily partition, one a call, and at most p_limit rows of the '
  'default partition. Return the numbers removed, nothing when done. A partition that is in use stays until a later '
  'call. Call it in a transaction of its own, because a drop blocks writers and readers of telemetry until commit. '
  'Raises 55P03 if another copy takes long.';
