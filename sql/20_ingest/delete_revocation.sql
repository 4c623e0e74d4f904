create function ingest.delete_revocation(p_revocation_id bigint) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
begin
  delete from public.revocations r
  where r.tenant_id = v_tenant_id and r.revocation_id = p_revocation_id and r.expires_at > core.now();
  if not found then
    raise exception using errcode = 'PU404', message = format('there is no revocation %s', p_revocation_id);
  end if;
end
$$;

comment on function ingest.delete_revocation(bigint) is
  'Delete a revocation, so that the tokens it named are accepted again until they expire. Raise PU404 for an unknown revocation.';
