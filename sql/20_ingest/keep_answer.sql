create function ingest.keep_answer(p_key_hash bytea, p_answer jsonb, p_secrets bytea) returns void
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  update ingest.idempotency_keys k
  set answer = p_answer, secrets = p_secrets
  where k.tenant_id = core.require_tenant() and k.key_hash = p_key_hash and k.answer is null;
end
$$;

comment on function ingest.keep_answer(bytea, jsonb, bytea) is
  'Store the answer to the request whose key this transaction has claimed. p_secrets holds its one-time secrets, encrypted.';
