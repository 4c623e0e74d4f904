create function ops._prune_idempotency_keys(p_before timestamptz, p_limit integer) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_removed integer;
begin
  delete from ingest.idempotency_keys
  where ctid = any(array(
    select old.ctid
    from ingest.idempotency_keys old
    where old.created_at < p_before
    order by old.created_at
    limit p_limit
    for update skip locked
  ));
  get diagnostics v_removed = row_count;
  return jsonb_build_object('idempotency_keys', v_removed);
end
$$;

comment on function ops._prune_idempotency_keys(timestamptz, integer) is
  'Delete keys of requests made before the time, at most p_limit; gives {table: rows deleted}.';
