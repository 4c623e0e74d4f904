-- A key is 256 random bits, so that its SHA-256 needs neither salt nor a slow hash.
create table public.api_keys (
  tenant_id text not null,
  key_id bigint generated always as identity,
  name text not null,
  role text not null,
  scopes text[] not null,
  key_hash bytea not null,
  created_at timestamptz not null default now(),
  created_by text,
  expires_at timestamptz not null,
  revoked_at timestamptz,
  revoked_by text,
  constraint api_keys_pkey primary key (tenant_id, key_id),
  constraint api_keys_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint api_keys_tenant_id_key_hash_key unique (tenant_id, key_hash),
  constraint api_keys_name_check check (length(name) between 1 and 200),
  constraint api_keys_role_check check (role in ('viewer', 'auditor', 'operator', 'admin')),
  constraint api_keys_scopes_check check (cardinality(scopes) between 1 and 100),
  constraint api_keys_key_hash_check check (octet_length(key_hash) = 32),
  constraint api_keys_expires_at_check check (expires_at > created_at)
);
create index api_keys_expires_at_idx on public.api_keys (expires_at);
comment on table public.api_keys is 'API keys of machines. Rows stay for a while after a key''s end, so that later uses are recognized.';
comment on column public.api_keys.tenant_id is 'Owner.';
comment on column public.api_keys.key_id is 'Number of the key.';
comment on column public.api_keys.name is 'Name for people.';
comment on column public.api_keys.role is 'Role of its requests: viewer, auditor, operator or admin.';
comment on column public.api_keys.scopes is 'Parts of the API that it may use, such as devices:read, as far as the role allows.';
comment on column public.api_keys.key_hash is 'SHA-256 of the whole key.';
comment on column public.api_keys.created_at is 'When the key was created.';
comment on column public.api_keys.created_by is 'Id of the actor that created it.';
comment on column public.api_keys.expires_at is 'When it ends.';
comment on column public.api_keys.revoked_at is 'When it was revoked; null: not at all.';
comment on column public.api_keys.revoked_by is 'Id of the actor that revoked it.';

-- Apart from the keys, whose changes are audit events.
create table ingest.api_key_uses (
  tenant_id text not null,
  key_id bigint not null,
  last_used_at timestamptz not null,
  constraint api_key_uses_pkey primary key (tenant_id, key_id),
  constraint api_key_uses_key_id_fkey foreign key (tenant_id, key_id)
    references public.api_keys (tenant_id, key_id) on delete cascade
);
comment on table ingest.api_key_uses is 'Newest use of each API key, written once a minute at most.';
comment on column ingest.api_key_uses.tenant_id is 'Owner.';
comment on column ingest.api_key_uses.key_id is 'Number of the key.';
comment on column ingest.api_key_uses.last_used_at is 'When the key was last accepted, up to a minute early.';

create table public.revocations (
  tenant_id text not null,
  revocation_id bigint generated always as identity,
  subject text,
  session text,
  token_id text,
  issued_before timestamptz,
  reason text not null,
  created_at timestamptz not null default now(),
  created_by text,
  expires_at timestamptz not null,
  constraint revocations_pkey primary key (tenant_id, revocation_id),
  constraint revocations_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint revocations_criteria_check check (num_nonnulls(subject, session, token_id, issued_before) > 0),
  constraint revocations_subject_check check (length(subject) between 1 and 255),
  constraint revocations_session_check check (length(session) between 1 and 255),
  constraint revocations_token_id_check check (length(token_id) between 1 and 255),
  constraint revocations_issued_before_check check (isfinite(issued_before)),
  constraint revocations_reason_check check (length(reason) between 1 and 500)
);
create index revocations_expires_at_idx on public.revocations (expires_at);
comment on table public.revocations is 'User tokens that are refused before they expire. Rows are removed after expires_at.';
comment on column public.revocations.tenant_id is 'Tenant whose tokens are refused.';
comment on column public.revocations.revocation_id is 'Number of the revocation.';
comment on column public.revocations.subject is 'Claim sub of the refused tokens; null: any.';
comment on column public.revocations.session is 'Claim sid or session_state of the refused tokens; null: any.';
comment on column public.revocations.token_id is 'Claim jti of the refused tokens; null: any.';
comment on column public.revocations.issued_before is 'Time before which the refused tokens were issued (claim iat); null: any.';
comment on column public.revocations.reason is 'Why, for people.';
comment on column public.revocations.created_at is 'When the tokens were revoked.';
comment on column public.revocations.created_by is 'Id of the actor that revoked them.';
comment on column public.revocations.expires_at is 'When the revocation ends.';

insert into audit.tracked_tables (table_name, entity_type, redacted_columns, only_columns) values
  ('public.api_keys', 'api_key', '{key_hash}', null),
  ('public.revocations', 'revocation', '{}', null);
