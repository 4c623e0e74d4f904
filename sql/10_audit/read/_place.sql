create function audit._place(p_block_no bigint, p_xid xid8 default '0') returns jsonb
language sql immutable parallel safe
return jsonb_build_array(p_block_no, p_xid, '-infinity', '', '00000000-0000-0000-0000-000000000000');

comment on function audit._place(bigint, xid8) is
  'Return the place right before a block''s rows in sealed order, or before one of its transactions. A place is the '
  'array [block_no, xid, timestamp, tenant_id, event_id] of a row.';
