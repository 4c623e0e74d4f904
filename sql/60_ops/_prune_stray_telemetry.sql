create function ops._prune_stray_telemetry(p_before timestamptz, p_limit integer) returns integer
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removed integer;
begin
  delete from only public.telemetry_default
  where ctid = any(array(
    select old.ctid
    from only public.telemetry_default old
    where old.timestamp < p_before
    limit p_limit
    for update skip locked
  ));
  get diagnostics v_removed = row_count;
  return v_removed;
end
$$;

comment on function ops._prune_stray_telemetry(timestamptz, integer) is
  'Delete readings older than p_before, at most p_limit, from the default partition. Return their number.';
