create function audit._bury_blocks(p_segment date, p_row_count bigint, p_note text) returns text
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lines constant text[] := string_to_array(p_note, E'\n');
  v_after bigint := audit._last_released_block(p_segment);
  v_blocks record;
  v_tree_size bigint := substring(v_lines[6] from '^tree ([0-9]{1,18})$');
  v_released text := substring(v_lines[7] from '^released ([0-9TZ:.-]+)$');
begin
  select min(b.block_no) as first, max(b.block_no) as last, coalesce(sum(b.row_count), 0) as rows
  into v_blocks
  from audit.blocks b
  where b.segment = p_segment and b.block_no > v_after;
  if v_blocks.rows <> p_row_count then
    return 'altered';
  elsif v_blocks.last is null and p_note is null then
    return null;
  elsif v_blocks.last is null or p_note is null
    or not starts_with(p_note, audit._tombstone_text(
      v_lines[1], p_segment, v_blocks.first, v_blocks.last, p_row_count, audit._segment_root(p_segment, v_after),
      v_tree_size::text, v_released
    ) || E'\n\u2014 ' || v_lines[1] || ' ')
    or not exists (select from audit.signing_keys k where k.name = v_lines[1])
    or not exists (select from audit.checkpoints c where c.tree_size = v_tree_size and c.tree_size > v_blocks.last)
  then
    return 'different';
  end if;
  insert into audit.tombstones (segment, last_block, first_block, row_count, released_at, note)
  values (p_segment, v_blocks.last, v_blocks.first, p_row_count, v_released::timestamptz, p_note);
  return null;
end
$$;

comment on function audit._bury_blocks(date, bigint, text) is
  'Store the tombstone of a month''s blocks; a month without blocks takes none. Gives null, or, with nothing stored: altered '
  'when the month has not as many rows as its blocks, different when the note does not say what the database says.';
