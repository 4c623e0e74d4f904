create function audit.cut_log(p_holder text, p_epoch bigint, p_size bigint) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
begin
  perform from audit.sealer s where s.holder = p_holder and s.epoch = p_epoch for update;
  if not found then
    return false;
  end if;
  delete from audit.blocks b where b.block_no >= p_size;
  delete from audit.tree_nodes n where (n.node_index + 1) << n.level > p_size;
  delete from audit.checkpoints c where c.tree_size > p_size;
  delete from audit.tombstones t where t.last_block >= p_size;
  return true;
end
$$;

comment on function audit.cut_log(text, bigint, bigint) is
  'Remove the blocks of the log from p_size on, with their nodes, checkpoints and tombstones, before an entry declares '
  'their loss. Rows of audit_log stay. Return false, with nothing done, if another sealer holds the lease. Checkpoints '
  'outside the database still name the removed blocks.';
