create function audit.read_segment(p_segment date, p_after_block bigint, p_rows bigint)
returns table (
  block_no bigint,
  segment date,
  previous_snapshot text,
  snapshot text,
  first_position bigint,
  row_count bigint,
  min_timestamp timestamptz,
  max_timestamp timestamptz,
  rows_root bytea,
  leaf_hash bytea,
  sealed_at timestamptz,
  epoch bigint,
  leaves bytea
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set enable_bitmapscan = off
as $$
begin
  perform audit._require_utf8();
  return query
    select
      b.block_no, b.segment, b.previous_snapshot::text, b.snapshot::text, b.first_position, b.row_count, b.min_timestamp,
      b.max_timestamp, b.rows_root, b.leaf_hash, b.sealed_at, b.epoch,
      (
        select string_agg(audit._leaf_hash(l), ''::bytea order by l.xid, l.timestamp, l.tenant_id collate "C", l.event_id)
        from audit._rows_between(b.previous_snapshot, b.snapshot) l
        where l.timestamp >= audit._segment_start(p_segment) and l.timestamp < audit._segment_end(p_segment)
      )
    from (
      select next.*, sum(next.row_count) over (order by next.block_no) - next.row_count as rows_before
      from (
        select s.*
        from audit.blocks s
        where s.segment = p_segment and s.block_no > greatest(p_after_block, audit._last_released_block(p_segment))
        order by s.block_no
        limit 1000
      ) next
    ) b
    where b.rows_before < p_rows
    order by b.block_no;
end
$$;

comment on function audit.read_segment(date, bigint, bigint) is
  'The blocks of a month after one of them that are not released, about p_rows rows of them, each with the leaf hashes of '
  'the rows that are there now, in sealed order; null leaves when none is left.';
