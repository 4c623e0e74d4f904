create view metrics.audit_sealed_blocks_total as
select coalesce((select max(block_no) + 1 from audit.blocks), 0) as value;

comment on view metrics.audit_sealed_blocks_total is
  'Blocks of audit events sealed so far, which is the size of the signed tree.';
