create function audit.read_head()
returns table (tree_size bigint, row_count bigint, frontier bytea[], root bytea, note text)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  with head as (
    select b.block_no + 1 as tree_size, b.first_position + b.row_count as row_count
    from audit.blocks b
    order by b.block_no desc
    limit 1
  )
  select
    coalesce(h.tree_size, 0),
    coalesce(h.row_count, 0),
    -- The complete subtrees that make up the tree, the widest first: one for each bit of its size.
    array(
      select coalesce(
        (select n.hash from audit.tree_nodes n where n.level = bit.level and n.node_index = (h.tree_size >> bit.level) - 1),
        (select b.leaf_hash from audit.blocks b where bit.level = 0 and b.block_no = h.tree_size - 1)
      )
      from generate_series(62, 0, -1) as bit (level)
      where (h.tree_size >> bit.level) & 1 = 1
      order by bit.level desc
    ),
    c.root,
    c.note
  from (select) as one
  left join head h on true
  left join audit.checkpoints c on c.tree_size = h.tree_size;
end;

comment on function audit.read_head() is
  'Where the log stands: blocks, rows, the hashes from which its root follows, and the checkpoint that was signed over it.';
