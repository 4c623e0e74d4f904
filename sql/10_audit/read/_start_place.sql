-- Blocks are not ordered by time, but each belongs to one month. Blocks beyond the last one of all months that may match
-- need not be read. Takes one index look-up for each month.
create function audit._start_place(p_filter jsonb, p_newest_first boolean, p_end bigint) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_since date := audit._segment((p_filter ->> 'since')::timestamptz);
  v_until date := audit._segment((p_filter ->> 'until')::timestamptz);
  v_month date;
  v_block bigint;
  v_edge bigint := case when p_newest_first then -1 else p_end end;
begin
  if p_newest_first and v_until is null then
    return audit._place(p_end);
  elsif not p_newest_first and v_since is null then
    return audit._place(0);
  end if;
  loop
    select b.segment into v_month
    from audit.blocks b
    where b.segment > coalesce(v_month, '-infinity')
      and b.segment >= coalesce(v_since, '-infinity')
      and b.segment <= coalesce(v_until, 'infinity')
    order by b.segment
    limit 1;
    exit when not found;
    if p_newest_first then
      select b.block_no into v_block
      from audit.blocks b
      where b.segment = v_month
      order by b.snapshot_xmax desc, b.block_no desc
      limit 1;
      v_edge := greatest(v_edge, v_block);
    else
      select b.block_no into v_block
      from audit.blocks b
      where b.segment = v_month
      order by b.snapshot_xmax, b.block_no
      limit 1;
      v_edge := least(v_edge, v_block);
    end if;
  end loop;
  return audit._place(v_edge + p_newest_first::integer);
end
$$;

comment on function audit._start_place(jsonb, boolean, bigint) is
  'Return the place at which to start: no block of the filter''s months lies before it, or, newest first, after it.';
