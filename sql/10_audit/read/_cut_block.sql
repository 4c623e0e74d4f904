-- Any transaction may be the cut. Counting those that began after the block's first snapshot takes one scan of the
-- index.
create function audit._cut_block(p_block audit.blocks, p_xid xid8, p_newest_first boolean, p_rows integer) returns xid8
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_low xid8 := pg_snapshot_xmax(p_block.previous_snapshot);
  v_high xid8 := pg_snapshot_xmax(p_block.snapshot);
  v_cut xid8;
begin
  if p_newest_first then
    v_high := case when p_xid = '0'::xid8 then v_high else least(p_xid, v_high) end;
    select l.xid into v_cut
    from public.audit_log l
    where l.xid >= v_low
      and l.xid < v_high
      and l.timestamp between p_block.min_timestamp and p_block.max_timestamp
    order by l.xid desc
    offset p_rows
    limit 1;
    return v_cut;
  end if;
  v_low := greatest(p_xid, v_low);
  select l.xid into v_cut
  from public.audit_log l
  where l.xid >= v_low
    and l.xid < v_high
    and l.timestamp between p_block.min_timestamp and p_block.max_timestamp
  order by l.xid
  offset p_rows
  limit 1;
  -- Cut after that transaction, so that one with more than p_rows rows does not stop the reader.
  return (v_cut::text::numeric + 1)::text::xid8;
end
$$;

comment on function audit._cut_block(audit.blocks, xid8, boolean, integer) is
  'Return the transaction before which to cut a block, so that about p_rows rows and at least one transaction lie '
  'between p_xid and the cut (newest first: between the cut and p_xid, exclusive). Null if the block has no more rows '
  'than that.';
