create function ingest.claim_idempotency_key(p_key_hash bytea, p_fingerprint bytea)
returns table (answer jsonb, secrets bytea)
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_tenant_id text := core.require_tenant();
  v_kept ingest.idempotency_keys;
begin
  -- This waits for a transaction that holds the same key. An expired row that is not yet pruned is taken over.
  insert into ingest.idempotency_keys as k (tenant_id, key_hash, fingerprint, created_at, trace_id)
  values (v_tenant_id, p_key_hash, p_fingerprint, core.now(), core.current_trace_id())
  on conflict (tenant_id, key_hash) do update
  set (fingerprint, created_at, trace_id, answer, secrets) = (
    excluded.fingerprint, excluded.created_at, excluded.trace_id, null, null)
  where k.created_at <= excluded.created_at - interval '24 hours';
  if found then
    return;
  end if;
  select k.* into v_kept
  from ingest.idempotency_keys k
  where k.tenant_id = v_tenant_id and k.key_hash = p_key_hash;
  if v_kept.fingerprint <> p_fingerprint then
    raise exception using errcode = 'PU422', message = 'this Idempotency-Key was used with another body';
  end if;
  return query select v_kept.answer, v_kept.secrets;
end
$$;

comment on function ingest.claim_idempotency_key(bytea, bytea) is
  'Claim a key for the transaction and return no row, or return the answer stored for the key within 24 hours. Raise PU422 if '
  'that answer was for another body. Wait for a transaction that holds the same key.';
