create function audit._tombstone_text(
  p_log text,
  p_segment date,
  p_first_block bigint,
  p_last_block bigint,
  p_row_count bigint,
  p_root bytea,
  p_tree_size text,
  p_released_at text
) returns text
language sql stable
set search_path = pg_catalog, pg_temp
return format(
  E'%s\ntombstone %s\nblocks %s-%s\nrows %s\nroot %s\ntree %s\nreleased %s\n',
  p_log, to_char(p_segment, 'YYYY-MM-DD'), p_first_block, p_last_block, p_row_count, encode(p_root, 'base64'), p_tree_size,
  p_released_at
);

comment on function audit._tombstone_text(text, date, bigint, bigint, bigint, bytea, text, text) is
  'Return the text of a month''s tombstone without its signature.';
