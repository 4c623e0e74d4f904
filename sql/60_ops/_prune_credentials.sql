create function ops._prune_credentials(p_before timestamptz, p_keys_before timestamptz, p_limit integer) returns jsonb
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_revocations integer;
  v_keys integer;
begin
  delete from public.revocations
  where ctid = any(array(
    select old.ctid
    from public.revocations old
    where old.expires_at < p_before
    order by old.expires_at
    limit p_limit
    for update skip locked
  ));
  get diagnostics v_revocations = row_count;
  delete from public.api_keys
  where ctid = any(array(
    select old.ctid
    from public.api_keys old
    where old.expires_at < p_keys_before
    order by old.expires_at
    limit p_limit
    for update skip locked
  ));
  get diagnostics v_keys = row_count;
  return jsonb_build_object('revocations', v_revocations, 'api_keys', v_keys);
end
$$;

comment on function ops._prune_credentials(timestamptz, timestamptz, integer) is
  'Delete revocations and API keys that ended before the times, at most p_limit of each; gives {table: rows deleted}.';
