-- Transaction numbers mean something on one server only. After a dump was loaded into another one, old rows carry the old
-- server's numbers while new rows get the new server's. So a row's xid is the number of the transaction plus 2^48 times
-- the epoch: the place in the sequence of servers that wrote to this trail. Numbers then only ever grow, and a block of
-- one epoch holds no row of another.

create table audit.epochs (
  epoch bigint not null,
  system_identifier bigint,
  timeline integer,
  database_oid bigint not null,
  relation_oid bigint not null,
  row_xmin bigint not null,
  noticed_at timestamptz not null default clock_timestamp(),
  constraint epochs_pkey primary key (epoch),
  constraint epochs_epoch_check check (epoch between 0 and 32767)
);
comment on table audit.epochs is 'Servers that wrote to the audit trail, the newest last. A row is at home while row_xmin is its xmin.';
comment on column audit.epochs.epoch is 'Upper 15 bits of the xid of every row written there.';
comment on column audit.epochs.system_identifier is 'System identifier of the server; null where it may not be read.';
comment on column audit.epochs.timeline is 'Timeline of the server when it was noticed; null where it may not be read.';
comment on column audit.epochs.database_oid is 'The database there.';
comment on column audit.epochs.relation_oid is 'Object id of this table there.';
comment on column audit.epochs.row_xmin is 'Transaction that wrote this row: a row that was loaded from a dump has another one.';
comment on column audit.epochs.noticed_at is 'When Pulse first noticed the server.';

do $$
declare
  v_epoch bigint := coalesce((select max(l.xid)::text::bigint >> 48 from public.audit_log l), 0);
  v_system bigint;
  v_timeline integer;
  -- Restored elsewhere before this revision: the last block names a transaction that this server has not reached.
  v_is_moved boolean := coalesce(
    (select b.snapshot_xmax > pg_snapshot_xmax(pg_current_snapshot()) from audit.blocks b order by b.block_no desc limit 1),
    false);
begin
  if has_function_privilege(to_regprocedure('pg_catalog.pg_control_system()'), 'execute') then
    select c.system_identifier into v_system from pg_control_system() c;
  end if;
  begin
    v_timeline := ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
  exception when others then
    null;  -- not on every managed server
  end;
  insert into audit.epochs (epoch, system_identifier, timeline, database_oid, relation_oid, row_xmin)
  select v_epoch, v_system, v_timeline, d.oid::bigint, 0, 0
  from pg_database d
  where d.datname = current_database();
  update audit.epochs
  set row_xmin = xmin::text::bigint, relation_oid = case when v_is_moved then 0 else tableoid::bigint end;
end
$$;

-- A statement trigger of sql/ sets the epoch; where there is none, every row was written by the first server.
alter table public.audit_log alter column xid set default
  case coalesce(nullif(current_setting('pulse.audit_epoch', true), ''), '0')
    when '0' then pg_current_xact_id()
    else ((current_setting('pulse.audit_epoch')::bigint << 48) + pg_current_xact_id()::text::bigint)::text::xid8
  end;
comment on column public.audit_log.xid is
  'Transaction that wrote the row, plus 2^48 times its epoch; with the snapshots of audit.blocks it tells the row''s block.';

-- An entry is a leaf of the tree without rows: a signed statement about the log itself.
alter table audit.blocks add column entry text;
comment on column audit.blocks.entry is 'Signed note of an entry: the log continues on another server, or with another key. Null for blocks of rows.';
alter table audit.blocks drop constraint blocks_row_count_check;
alter table audit.blocks add constraint blocks_row_count_check check ((row_count > 0) = (entry is null) and row_count >= 0);
alter table audit.blocks drop constraint blocks_first_position_key;
create unique index blocks_first_position_key on audit.blocks (first_position) where entry is null;
create index blocks_entry_idx on audit.blocks (block_no) where entry is not null;

create table audit.verifications (
  scope text not null,
  verified_at timestamptz not null,
  row_count bigint not null,
  fault_count bigint not null,
  message text,
  constraint verifications_pkey primary key (scope),
  constraint verifications_scope_check check (scope in ('day', 'all'))
);
comment on table audit.verifications is 'What the ops worker found when it last verified the sealed log by itself.';
comment on column audit.verifications.scope is 'day: rows sealed within the last day; all: every row.';
comment on column audit.verifications.verified_at is 'End of the verification.';
comment on column audit.verifications.row_count is 'Rows hashed anew.';
comment on column audit.verifications.fault_count is 'Faults found; 0: everything is as it was sealed.';
comment on column audit.verifications.message is 'The first fault; null when there is none.';
