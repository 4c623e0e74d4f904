create function audit.append_blocks(
  p_holder text,
  p_epoch bigint,
  p_blocks jsonb,
  p_levels smallint[],
  p_node_indexes bigint[],
  p_node_hashes bytea[],
  p_checkpoint jsonb,
  p_event jsonb default null
) returns boolean
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_next bigint;
begin
  -- Refuse a sealer that lost the lease, or that prepared these blocks while another one sealed.
  perform from audit.sealer s where s.holder = p_holder and s.epoch = p_epoch for update;
  if not found then
    return false;
  end if;
  select coalesce(max(b.block_no) + 1, 0) into v_next from audit.blocks b;
  if v_next <> (p_blocks -> 0 ->> 'block_no')::bigint then
    return false;
  end if;
  insert into audit.blocks (
    block_no, segment, previous_snapshot, snapshot, snapshot_xmax, first_position, row_count, min_timestamp,
    max_timestamp, rows_root, leaf_hash, sealed_at, epoch, entry
  )
  select
    b.block_no, b.segment, b.previous_snapshot, b.snapshot, pg_snapshot_xmax(b.snapshot), b.first_position, b.row_count,
    b.min_timestamp, b.max_timestamp, decode(b.rows_root, 'hex'), decode(b.leaf_hash, 'hex'), b.sealed_at, b.epoch,
    b.entry
  from jsonb_to_recordset(p_blocks) as b (
    block_no bigint, segment date, previous_snapshot pg_snapshot, snapshot pg_snapshot, first_position bigint,
    row_count bigint, min_timestamp timestamptz, max_timestamp timestamptz, rows_root text, leaf_hash text,
    sealed_at timestamptz, epoch bigint, entry text
  );
  insert into audit.tree_nodes (level, node_index, hash)
  select n.level, n.node_index, n.hash
  from unnest(p_levels, p_node_indexes, p_node_hashes) as n (level, node_index, hash);
  insert into audit.signing_keys (key_id, name, public_key)
  values (p_checkpoint ->> 'key_id', p_checkpoint ->> 'key_name', decode(p_checkpoint ->> 'public_key', 'hex'))
  on conflict do nothing;
  insert into audit.checkpoints (tree_size, root, row_count, signed_at, key_id, note)
  values (
    (p_checkpoint ->> 'tree_size')::bigint,
    decode(p_checkpoint ->> 'root', 'hex'),
    (p_checkpoint ->> 'row_count')::bigint,
    (p_checkpoint ->> 'signed_at')::timestamptz,
    p_checkpoint ->> 'key_id',
    p_checkpoint ->> 'note'
  );
  if p_event is not null then
    perform audit.write(array[audit.event(
      p_tenant_id => 'system',
      p_event_type => p_event ->> 'event_type',
      p_entity_type => p_event ->> 'entity_type',
      p_entity_id => p_event ->> 'entity_id',
      p_message => p_event ->> 'message',
      p_details => p_event -> 'details',
      p_source_service => p_event ->> 'source_service',
      p_actor_type => p_event ->> 'actor_type',
      p_actor_id => p_event ->> 'actor_id')]);
  end if;
  update public.installation i set log_begun_at = clock_timestamp() where i.log_begun_at is null;
  perform core.notify('pulse_audit_sealed');
  return true;
end
$$;

comment on function audit.append_blocks(text, bigint, jsonb, smallint[], bigint[], bytea[], jsonb, jsonb) is
  'Append sealed blocks or entries, the subtrees that they complete, the checkpoint over all and the event that records '
  'them. Return false, with nothing done, if another sealer holds the lease or other blocks came first.';
