create function audit.read_head()
returns table (
  tree_size bigint,
  row_count bigint,
  frontier bytea[],
  root bytea,
  note text,
  key_id text,
  key_name text,
  public_key bytea,
  snapshot text,
  entry text,
  epoch bigint,
  system_identifier bigint,
  timeline integer,
  database_oid bigint,
  is_begun boolean,
  installation_id text
)
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
    -- The complete subtrees of the tree, widest first: one for each bit of its size.
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
    c.note,
    c.key_id,
    k.name,
    k.public_key,
    audit._head_snapshot()::text,
    (select b.entry from audit.blocks b where b.entry is not null order by b.block_no desc limit 1),
    e.epoch,
    e.system_identifier,
    e.timeline,
    e.database_oid,
    h.tree_size is not null
      or exists (select from public.installation i where i.log_begun_at is not null)
      or exists (select from audit.signing_keys)
      or exists (select from audit.checkpoints)
      or exists (select from audit.tombstones),
    (select i.installation_id::text from public.installation i)
  from (select) as one
  left join head h on true
  left join audit.checkpoints c on c.tree_size = h.tree_size
  left join audit.signing_keys k on k.key_id = c.key_id
  left join audit.epochs e on e.epoch = case
    when h.tree_size is null then audit._epoch()
    else pg_snapshot_xmax(audit._head_snapshot())::text::bigint >> 48
  end;
end;

comment on function audit.read_head() is
  'Return the head of the log: its blocks and rows, the hashes from which its root follows, its checkpoint with the '
  'key, the newest entry, and the server on which the newest block of rows was sealed (while nothing is sealed, the '
  'present server on record). is_begun: whether anything was ever signed here. installation_id: of public.installation.';
