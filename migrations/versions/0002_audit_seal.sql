-- What the proof over audit_log needs. A row names the transaction that wrote it; a block names two snapshots. The rows
-- of a block are those of one UTC month whose transaction the second snapshot sees and the first does not: so every
-- committed row is in exactly one block, no row is ever updated, and no writer waits for the sealer.

-- Rows that are there already get the transaction of this migration, without a rewrite of the table.
alter table public.audit_log add column xid xid8 not null default pg_current_xact_id();
-- Rows of one COPY share their key, which the index stores once: it is the smallest of the table.
create index audit_log_xid_idx on public.audit_log (xid);
comment on column public.audit_log.xid is 'Transaction that wrote the row; with the snapshots of audit.blocks it tells the row''s block.';

-- An infinite time, one of more than four digits and a number that is none have forms of their own in every language
-- that would hash them.
alter table public.audit_log add constraint audit_log_timestamp_check
  check (timestamp >= '0001-01-01 00:00+00' and timestamp < '10000-01-01 00:00+00');
alter table public.audit_log add constraint audit_log_recorded_at_check
  check (recorded_at >= '0001-01-01 00:00+00' and recorded_at < '10000-01-01 00:00+00');
alter table public.audit_log add constraint audit_log_duration_ms_check
  check (duration_ms > '-infinity' and duration_ms < 'infinity');

create table audit.blocks (
  block_no bigint not null,
  segment date not null,
  previous_snapshot pg_snapshot not null,
  snapshot pg_snapshot not null,
  snapshot_xmax xid8 not null,
  first_position bigint not null,
  row_count bigint not null,
  min_timestamp timestamptz not null,
  max_timestamp timestamptz not null,
  rows_root bytea not null,
  leaf_hash bytea not null,
  sealed_at timestamptz not null,
  epoch bigint not null,
  constraint blocks_pkey primary key (block_no),
  constraint blocks_first_position_key unique (first_position),
  constraint blocks_block_no_check check (block_no >= 0),
  constraint blocks_row_count_check check (row_count > 0),
  constraint blocks_hashes_check check (octet_length(rows_root) = 32 and octet_length(leaf_hash) = 32)
);
create index blocks_segment_idx on audit.blocks (segment, snapshot_xmax, block_no);
comment on table audit.blocks is 'Sealed blocks of audit_log in their one order; block_no is the block''s leaf in the Merkle tree.';
comment on column audit.blocks.block_no is 'Place in the tree, from 0 without gaps.';
comment on column audit.blocks.segment is 'First day of the UTC month that all rows of the block lie in by timestamp.';
comment on column audit.blocks.previous_snapshot is 'The block holds no transaction that this snapshot sees.';
comment on column audit.blocks.snapshot is 'The block holds only transactions that this snapshot sees.';
comment on column audit.blocks.snapshot_xmax is 'pg_snapshot_xmax(snapshot), for the look-up of a row''s block.';
comment on column audit.blocks.first_position is 'Rows sealed in earlier blocks: the position of this block''s first row, from 0.';
comment on column audit.blocks.row_count is 'Rows of the block.';
comment on column audit.blocks.min_timestamp is 'Earliest timestamp of its rows.';
comment on column audit.blocks.max_timestamp is 'Latest timestamp of its rows.';
comment on column audit.blocks.rows_root is 'RFC 6962 root over the leaf hashes of its rows in sealed order.';
comment on column audit.blocks.leaf_hash is 'RFC 6962 leaf hash of the block''s header, which covers every column before it and sealed_at and epoch.';
comment on column audit.blocks.sealed_at is 'When it was sealed, by the database''s clock.';
comment on column audit.blocks.epoch is 'Lease under which it was sealed.';

create table audit.tree_nodes (
  level smallint not null,
  node_index bigint not null,
  hash bytea not null,
  constraint tree_nodes_pkey primary key (level, node_index),
  constraint tree_nodes_level_check check (level >= 1),
  constraint tree_nodes_hash_check check (octet_length(hash) = 32)
);
comment on table audit.tree_nodes is 'Hashes of the complete subtrees over audit.blocks, so that a proof reads a few rows.';
comment on column audit.tree_nodes.level is 'The node covers 2^level blocks.';
comment on column audit.tree_nodes.node_index is 'The node covers the blocks from node_index * 2^level on.';
comment on column audit.tree_nodes.hash is 'SHA-256 of 0x01 and its two children.';

create table audit.checkpoints (
  tree_size bigint not null,
  root bytea not null,
  row_count bigint not null,
  signed_at timestamptz not null,
  key_id text not null,
  note text not null,
  constraint checkpoints_pkey primary key (tree_size),
  constraint checkpoints_root_check check (octet_length(root) = 32)
);
comment on table audit.checkpoints is 'Signed statements of how many blocks there are and what they hash to. The copies outside the database are the proof.';
comment on column audit.checkpoints.tree_size is 'Blocks covered.';
comment on column audit.checkpoints.root is 'RFC 6962 root over their leaf hashes.';
comment on column audit.checkpoints.row_count is 'Rows covered.';
comment on column audit.checkpoints.signed_at is 'When it was signed.';
comment on column audit.checkpoints.key_id is 'Key that signed it, eight hex digits.';
comment on column audit.checkpoints.note is 'The signed note (C2SP tlog-checkpoint) as it was handed to the anchors.';

create table audit.sealer (
  is_singleton boolean not null default true,
  holder text,
  epoch bigint not null default 0,
  lease_until timestamptz not null default '-infinity',
  constraint sealer_pkey primary key (is_singleton),
  constraint sealer_is_singleton_check check (is_singleton)
);
comment on table audit.sealer is 'Who seals now: one row.';
comment on column audit.sealer.is_singleton is 'Always true.';
comment on column audit.sealer.holder is 'Process that holds the lease.';
comment on column audit.sealer.epoch is 'Fence: counts the leases; a block of an older epoch is refused.';
comment on column audit.sealer.lease_until is 'End of the lease.';
insert into audit.sealer (is_singleton) values (true);

create table audit.signing_keys (
  key_id text not null,
  name text not null,
  public_key bytea not null,
  first_used_at timestamptz not null default clock_timestamp(),
  constraint signing_keys_pkey primary key (key_id),
  constraint signing_keys_public_key_check check (octet_length(public_key) = 32)
);
comment on table audit.signing_keys is 'Public keys that signed checkpoints. For information: trust a copy that never was in this database.';
comment on column audit.signing_keys.key_id is 'First four bytes of the SHA-256 of name and key, in hex, as signed notes name it.';
comment on column audit.signing_keys.name is 'Name of the log.';
comment on column audit.signing_keys.public_key is 'Ed25519 public key.';
comment on column audit.signing_keys.first_used_at is 'When the sealer first signed with it.';

create table audit.tombstones (
  segment date not null,
  last_block bigint not null,
  first_block bigint not null,
  row_count bigint not null,
  released_at timestamptz not null,
  note text not null,
  constraint tombstones_pkey primary key (segment, last_block)
);
comment on table audit.tombstones is 'Months that retention dropped: the blocks that may have no rows any more, each with a signed note.';
comment on column audit.tombstones.segment is 'First day of the UTC month.';
comment on column audit.tombstones.last_block is 'Last block of the month that was dropped; what is sealed later in the same month counts anew.';
comment on column audit.tombstones.first_block is 'First block of the month that was dropped.';
comment on column audit.tombstones.row_count is 'Rows that were dropped.';
comment on column audit.tombstones.released_at is 'When they were dropped.';
comment on column audit.tombstones.note is 'Signed note that says so.';

create table audit.holds (
  hold_id bigint generated always as identity,
  starts_at timestamptz not null,
  ends_at timestamptz not null,
  reason text not null,
  placed_by text not null,
  placed_at timestamptz not null default clock_timestamp(),
  released_by text,
  released_at timestamptz,
  release_reason text,
  constraint holds_pkey primary key (hold_id),
  constraint holds_range_check check (starts_at < ends_at),
  constraint holds_reason_check check (reason <> ''),
  constraint holds_released_check check (num_nonnulls(released_by, released_at, release_reason) in (0, 3))
);
comment on table audit.holds is 'Legal holds: no month that overlaps one in force is dropped.';
comment on column audit.holds.hold_id is 'Number of the hold.';
comment on column audit.holds.starts_at is 'Events from then on are held.';
comment on column audit.holds.ends_at is 'Events before then are held.';
comment on column audit.holds.reason is 'Why.';
comment on column audit.holds.placed_by is 'Who placed it.';
comment on column audit.holds.placed_at is 'When.';
comment on column audit.holds.released_by is 'Who released it; null while it is in force.';
comment on column audit.holds.released_at is 'When it was released.';
comment on column audit.holds.release_reason is 'Why it was released.';

create table audit.retention (
  is_singleton boolean not null default true,
  keep_days integer not null default 0,
  last_run_at timestamptz,
  constraint retention_pkey primary key (is_singleton),
  constraint retention_is_singleton_check check (is_singleton)
);
comment on table audit.retention is 'What the retention of audit_log last did, so that a view can tell when it is late: one row.';
comment on column audit.retention.is_singleton is 'Always true.';
comment on column audit.retention.keep_days is 'Age at which a month is dropped, as the ops worker was last set; 0: never.';
comment on column audit.retention.last_run_at is 'End of its last pass without a fault; null before the first.';
insert into audit.retention (is_singleton) values (true);

create table audit.tracked_tables (
  table_name text not null,
  entity_type text not null,
  redacted_columns text[] not null default '{}',
  only_columns text[],
  constraint tracked_tables_pkey primary key (table_name)
);
comment on table audit.tracked_tables is 'Tables whose every change is an audit event; audit.track adds to them.';
comment on column audit.tracked_tables.table_name is 'Schema-qualified name.';
comment on column audit.tracked_tables.entity_type is 'What a row is called in events: rule, device, channel, …';
comment on column audit.tracked_tables.redacted_columns is 'Columns whose values are never written to an event.';
comment on column audit.tracked_tables.only_columns is 'The only columns that matter; null: all.';
insert into audit.tracked_tables (table_name, entity_type, redacted_columns, only_columns) values
  ('public.devices', 'device', '{token_hash}', null),
  ('public.alert_rules', 'rule', '{}', null),
  ('public.notification_channels', 'channel', '{config}', null),
  ('public.notification_routes', 'route', '{}', null),
  ('public.escalation_policies', 'policy', '{}', null),
  ('public.escalation_steps', 'policy_step', '{}', null),
  ('public.alerts', 'alert', '{}', '{silenced_until}');

-- A change of where notifications go must show in the trail, and the configuration it is part of must not. The addresses of
-- Slack and Teams are secrets themselves: whoever knows one can post. A webhook's may carry one in its query.
alter table public.notification_channels add column shown_url text generated always as (
  case
    when kind = 'webhook' then
      substring(config ->> 'url' from '^(https?://[^/?#@[:space:]]+(?:/[^?#]*)?)(?:[?#].*)?$')
      || case when config ->> 'url' ~ '[?#]' then '?…' else '' end
    else substring(config ->> 'url' from '^(https?://[^/?#@[:space:]]+)(?:[/?#].*)?$') || '/…'
  end
) stored;
comment on column public.notification_channels.shown_url is
  'What of the address may be shown: without its secret part; null when there is none or it is no plain address.';

-- For the auditor's views and the search for attacks. A row that is no refusal and names no account or user is in none of
-- them, so that readings, alerts and deliveries pay nothing.
create index audit_log_auth_failure_recorded_at_idx on public.audit_log (recorded_at)
  where event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited');
create index audit_log_auth_failure_address_idx on public.audit_log (ip_address, timestamp)
  where event_type in ('auth.login_failure', 'auth.forbidden', 'auth.rate_limited');
create index audit_log_auth_account_idx on public.audit_log ((details ->> 'account'), timestamp)
  where event_type like 'auth.%' and details ->> 'account' is not null;
create index audit_log_user_idx on public.audit_log (actor_id, timestamp) where actor_type = 'user' and actor_id is not null;

create table audit.attack_findings (
  finding_id bigint generated always as identity,
  kind text not null,
  subject text not null,
  first_at timestamptz not null,
  last_at timestamptz not null,
  failures bigint not null,
  accounts bigint not null,
  addresses bigint not null,
  detected_at timestamptz not null default clock_timestamp(),
  closed_at timestamptz,
  alert_id bigint,
  constraint attack_findings_pkey primary key (finding_id),
  constraint attack_findings_kind_check
    check (kind in ('brute_force', 'credential_stuffing', 'password_spraying', 'success_after_failures'))
);
create unique index attack_findings_open_key on audit.attack_findings (kind, subject) where closed_at is null;
create index attack_findings_subject_idx on audit.attack_findings (kind, subject, last_at);
create index attack_findings_detected_at_idx on audit.attack_findings (detected_at);
comment on table audit.attack_findings is 'Attacks on accounts that the audit trail shows, found by audit.detect_attacks.';
comment on column audit.attack_findings.finding_id is 'Number of the finding.';
comment on column audit.attack_findings.kind is 'brute_force, credential_stuffing, password_spraying or success_after_failures.';
comment on column audit.attack_findings.subject is 'Account or address it is about; all for what has no single one.';
comment on column audit.attack_findings.first_at is 'First failure that counts.';
comment on column audit.attack_findings.last_at is 'Last event that counts, kept up while it goes on.';
comment on column audit.attack_findings.failures is 'Failures that count, the most within one window of audit.attack_thresholds.';
comment on column audit.attack_findings.accounts is 'Accounts that were tried, the most within one window.';
comment on column audit.attack_findings.addresses is 'Addresses it came from, the most within one window.';
comment on column audit.attack_findings.detected_at is 'When it was found.';
comment on column audit.attack_findings.closed_at is 'When it had been quiet for long enough; null while it is going on.';
comment on column audit.attack_findings.alert_id is 'System alert that it opened; null when many of its kind had one already.';

create table audit.attack_detector (
  is_singleton boolean not null default true,
  checked_at timestamptz not null default '-infinity',
  constraint attack_detector_pkey primary key (is_singleton),
  constraint attack_detector_is_singleton_check check (is_singleton)
);
comment on table audit.attack_detector is 'How far the search for attacks has come: one row.';
comment on column audit.attack_detector.is_singleton is 'Always true.';
comment on column audit.attack_detector.checked_at is 'Refusals recorded before then have been looked at.';
insert into audit.attack_detector (is_singleton) values (true);
