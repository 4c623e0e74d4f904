-- A block with more rows than wanted is cut between two transactions, so that a page does not read the whole block.
create function audit._next_window(p_place jsonb, p_newest_first boolean, p_rows integer) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_xid xid8 := p_place ->> 1;
  v_block audit.blocks;
  v_edge bigint;
begin
  select b.* into v_block
  from audit.blocks b
  where b.block_no = (p_place ->> 0)::bigint - (p_newest_first and v_xid = '0'::xid8)::integer;
  if not found then
    return null;
  end if;
  if v_block.row_count > p_rows then
    if p_newest_first and p_place ->> 2 <> '-infinity' then
      -- The place is within this transaction's rows, not before them.
      v_xid := (v_xid::text::numeric + 1)::text::xid8;
    end if;
    v_xid := audit._cut_block(v_block, v_xid, p_newest_first, p_rows);
    if v_xid is not null then
      return audit._place(v_block.block_no, v_xid);
    end if;
  end if;
  if p_newest_first then
    select b.block_no into v_edge
    from audit.blocks b
    where b.first_position <= v_block.first_position + v_block.row_count - p_rows and b.entry is null
    order by b.first_position desc
    limit 1;
    return audit._place(coalesce(least(v_edge, v_block.block_no), 0));
  end if;
  select b.block_no into v_edge
  from audit.blocks b
  where b.first_position < v_block.first_position + p_rows and b.entry is null
  order by b.first_position desc
  limit 1;
  return audit._place(greatest(v_edge, v_block.block_no) + 1);
end
$$;

comment on function audit._next_window(jsonb, boolean, integer) is
  'Return the place about p_rows rows further in sealed order; null if there is no further block. Reads rows only to '
  'cut a large block.';
