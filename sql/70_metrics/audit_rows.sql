-- No counting: a block knows how many rows came before it, and a dropped month how many went with it.
create view metrics.audit_rows as
select
  coalesce((select first_position + row_count from audit.blocks order by block_no desc limit 1), 0)
  - coalesce((select sum(row_count) from audit.tombstones), 0) as value;

comment on view metrics.audit_rows is
  'Sealed events in the audit trail, those of dropped months not included; what is not sealed is a queue.';
