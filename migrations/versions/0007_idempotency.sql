-- Answers to requests with an Idempotency-Key, for the day in which such a request may be sent again.

create table ingest.idempotency_keys (
  tenant_id text not null,
  key_hash bytea not null,
  fingerprint bytea not null,
  created_at timestamptz not null,
  trace_id text,
  answer jsonb,
  secrets bytea,
  constraint idempotency_keys_pkey primary key (tenant_id, key_hash),
  constraint idempotency_keys_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint idempotency_keys_key_hash_check check (octet_length(key_hash) = 32),
  constraint idempotency_keys_fingerprint_check check (octet_length(fingerprint) = 32),
  constraint idempotency_keys_answer_check check (jsonb_typeof(answer) = 'object')
);
create index idempotency_keys_created_at_idx on ingest.idempotency_keys (created_at);
comment on table ingest.idempotency_keys is 'Answers to requests with an Idempotency-Key; ops.prune removes them after 24 hours.';
comment on column ingest.idempotency_keys.tenant_id is 'Owner.';
comment on column ingest.idempotency_keys.key_hash is 'scrypt of the key, with the principal and the address that it was sent to as salt.';
comment on column ingest.idempotency_keys.fingerprint is 'HMAC of the request''s body, keyed by the key.';
comment on column ingest.idempotency_keys.created_at is 'When the transaction began that made the answer.';
comment on column ingest.idempotency_keys.trace_id is 'Trace of the request that had the effect.';
comment on column ingest.idempotency_keys.answer is 'What the request was answered, as the API shows it; null only within the transaction that makes it.';
comment on column ingest.idempotency_keys.secrets is 'Members of the answer that are shown once, encrypted by the key, which is not stored; null without such.';
