create function audit._bury_blocks(
  p_segment date,
  p_partition text,
  p_note text,
  out row_count bigint,
  out fault text
)
language plpgsql volatile
set search_path = pg_catalog, pg_temp
as $$
declare
  v_lines constant text[] := string_to_array(p_note, E'\n');
  v_after bigint := audit._last_released_block(p_segment);
  v_found record;
  v_tree_size bigint := substring(v_lines[6] from '^tree ([0-9]{1,18})$');
  v_released text := substring(v_lines[7] from '^released ([0-9TZ:.-]+)$');
begin
  -- One statement, so that rows and blocks are read at one moment without a lock.
  execute format(
    'select
      (select count(*) from public.%I l where pg_visible_in_snapshot(l.xid, (select audit._head_snapshot()))) as row_count,
      min(b.block_no) as first_block, max(b.block_no) as last_block, coalesce(sum(b.row_count), 0) as sealed_rows
    from audit.blocks b
    where b.segment = $1 and b.block_no > $2',
    p_partition
  )
  into v_found
  using p_segment, v_after;
  row_count := v_found.row_count;
  if v_found.sealed_rows <> row_count then
    fault := 'altered';
  elsif v_found.last_block is null and p_note is null then
    return;
  elsif v_found.last_block is null or p_note is null
    or not starts_with(p_note, audit._tombstone_text(
      v_lines[1], p_segment, v_found.first_block, v_found.last_block, row_count,
      audit._segment_root(p_segment, v_after), v_tree_size::text, v_released
    ) || E'\n\u2014 ' || v_lines[1] || ' ')
    or not exists (select from audit.signing_keys k where k.name = v_lines[1])
    or not exists (select from audit.checkpoints c where c.tree_size = v_tree_size and c.tree_size > v_found.last_block)
  then
    fault := 'different';
  else
    insert into audit.tombstones (segment, last_block, first_block, row_count, released_at, note)
    values (p_segment, v_found.last_block, v_found.first_block, row_count, v_released::timestamptz, p_note);
  end if;
end
$$;

comment on function audit._bury_blocks(date, text, text) is
  'Store the tombstone of a month''s blocks. A month without blocks takes none. Return the number of the month''s rows '
  'and null; or, with nothing stored, altered if it differs from the number in the blocks, or different if the note '
  'contradicts the database.';
