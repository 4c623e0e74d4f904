-- Counts no rows: a block holds the number of rows before it, and a tombstone the number of dropped rows.
create view metrics.audit_rows as
select
  coalesce((select first_position + row_count from audit.blocks order by block_no desc limit 1), 0)
  - coalesce((select sum(row_count) from audit.tombstones), 0) as value;

comment on view metrics.audit_rows is
  'Sealed events in the audit trail, without those of dropped months and unsealed ones.';
