-- Counting rows of the audit trail would not do: a counter must not fall when a month of the trail is dropped.
create table ops.process_starts (
  tenant_id text not null default 'system',
  service text not null,
  starts bigint not null default 0,
  stops bigint not null default 0,
  started_at timestamptz,
  stopped_at timestamptz,
  constraint process_starts_pkey primary key (tenant_id, service)
);
comment on table ops.process_starts is 'How often processes of each service started and stopped cleanly, since the installation.';
comment on column ops.process_starts.tenant_id is 'Always ''system''.';
comment on column ops.process_starts.service is 'Service.';
comment on column ops.process_starts.starts is 'Processes that became able to work.';
comment on column ops.process_starts.stops is 'Processes that stopped cleanly; the others crashed or run.';
comment on column ops.process_starts.started_at is 'Time of the newest start.';
comment on column ops.process_starts.stopped_at is 'Time of the newest clean stop.';
