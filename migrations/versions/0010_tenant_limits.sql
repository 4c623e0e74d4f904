-- What one tenant may have, so that it cannot use up what all tenants share.
create table public.tenant_limits (
  tenant_id text not null,
  limit_name text not null,
  value bigint not null,
  updated_at timestamptz not null default now(),
  constraint tenant_limits_pkey primary key (tenant_id, limit_name),
  constraint tenant_limits_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id),
  constraint tenant_limits_limit_name_check check (
    limit_name in ('rules', 'devices', 'series', 'channels', 'alerts_open', 'transitions_per_minute')
  ),
  constraint tenant_limits_value_check check (value between 0 and 1000000000000)
);
comment on table public.tenant_limits is 'Limits of a tenant; the rows of ''system'' are the defaults of all others.';
comment on column public.tenant_limits.tenant_id is 'Tenant with a limit of its own, or ''system'' for the default.';
comment on column public.tenant_limits.limit_name is 'What is limited.';
comment on column public.tenant_limits.value is 'Most that the tenant may have; 0 for no limit.';
comment on column public.tenant_limits.updated_at is 'When the limit was last changed.';
insert into public.tenant_limits (tenant_id, limit_name, value) values
  ('system', 'rules', 10000),
  ('system', 'devices', 100000),
  ('system', 'series', 1000000),
  ('system', 'channels', 1000),
  ('system', 'alerts_open', 100000),
  ('system', 'transitions_per_minute', 120000);
insert into audit.tracked_tables (table_name, entity_type, redacted_columns, only_columns) values
  ('public.tenant_limits', 'tenant_limit', '{}', null);

-- Counting the rows at each insert would cost more the more there are.
create table public.tenant_usage (
  tenant_id text not null,
  limit_name text not null,
  used bigint not null,
  constraint tenant_usage_pkey primary key (tenant_id, limit_name),
  constraint tenant_usage_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id)
) with (fillfactor = 50);
comment on table public.tenant_usage is 'Rows that count against a tenant''s limits, kept by the transactions that add and remove them.';
comment on column public.tenant_usage.tenant_id is 'Tenant.';
comment on column public.tenant_usage.limit_name is 'rules, devices or channels.';
comment on column public.tenant_usage.used is 'Number of rows.';
insert into public.tenant_usage (tenant_id, limit_name, used)
select tenant_id, 'rules', count(*) from public.alert_rules group by tenant_id
union all
select tenant_id, 'devices', count(*) from public.devices group by tenant_id
union all
select tenant_id, 'channels', count(*) from public.notification_channels group by tenant_id;

-- A transaction that is not committed must not keep others from beginning series, so each adds a row and merges those
-- that no other one holds.
create table ingest.series_counts (
  tenant_id text not null,
  count_id bigint generated always as identity,
  added bigint not null,
  constraint series_counts_pkey primary key (tenant_id, count_id),
  constraint series_counts_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id)
);
comment on table ingest.series_counts is 'Series of a tenant: the sum of its rows, kept by the transactions that begin and remove them.';
comment on column ingest.series_counts.tenant_id is 'Tenant.';
comment on column ingest.series_counts.count_id is 'Number of the row.';
comment on column ingest.series_counts.added is 'Series that began, less those that were removed.';
insert into ingest.series_counts (tenant_id, added) select tenant_id, count(*) from public.device_state group by tenant_id;

create table ops.limit_refusals (
  tenant_id text not null,
  limit_name text not null,
  shard smallint not null,
  window_start timestamptz not null,
  window_refused bigint not null,
  refused bigint not null,
  audited_at timestamptz,
  constraint limit_refusals_pkey primary key (tenant_id, limit_name, shard),
  constraint limit_refusals_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id)
);
comment on table ops.limit_refusals is 'How often a limit refused something to a tenant.';
comment on column ops.limit_refusals.tenant_id is 'Tenant.';
comment on column ops.limit_refusals.limit_name is 'Limit that was reached.';
comment on column ops.limit_refusals.shard is 'Shard whose holder counted, so that two passes never wait for each other; -1 for the API.';
comment on column ops.limit_refusals.window_start is 'Start of the newest window with a refusal.';
comment on column ops.limit_refusals.window_refused is 'Refusals in that window.';
comment on column ops.limit_refusals.refused is 'Refusals since the installation.';
comment on column ops.limit_refusals.audited_at is 'When this row last wrote an audit event.';

create table evaluator.opening_counts (
  tenant_id text not null,
  shard smallint not null,
  minute timestamptz not null,
  openings bigint not null,
  constraint opening_counts_pkey primary key (tenant_id, shard),
  constraint opening_counts_tenant_id_fkey foreign key (tenant_id) references public.tenants (tenant_id)
) with (fillfactor = 50);
comment on table evaluator.opening_counts is 'Alerts that opened in the newest minute, by tenant and shard.';
comment on column evaluator.opening_counts.tenant_id is 'Tenant.';
comment on column evaluator.opening_counts.shard is 'Shard whose holder counted.';
comment on column evaluator.opening_counts.minute is 'Start of the minute.';
comment on column evaluator.opening_counts.openings is 'Alerts that opened in it.';
