create function audit.read_nodes(p_levels smallint[], p_node_indexes bigint[])
returns table (level smallint, node_index bigint, hash bytea)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select asked.level, asked.node_index, coalesce(n.hash, b.leaf_hash)
  from unnest(p_levels, p_node_indexes) as asked (level, node_index)
  left join audit.tree_nodes n on n.level = asked.level and n.node_index = asked.node_index
  left join audit.blocks b on asked.level = 0 and b.block_no = asked.node_index;
end;

comment on function audit.read_nodes(smallint[], bigint[]) is
  'Return the hashes of complete subtrees over the blocks; level 0 are the blocks themselves. Null where there is none.';
