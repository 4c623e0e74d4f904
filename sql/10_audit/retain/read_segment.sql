-- Reads the month's own partition instead of audit_log with a range of timestamps. Without statistics the planner would
-- use the timestamps and read the whole month for each block.
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
  return query execute format(
    $query$
      select
        b.block_no, b.segment, b.previous_snapshot::text, b.snapshot::text, b.first_position, b.row_count,
        b.min_timestamp, b.max_timestamp, b.rows_root, b.leaf_hash, b.sealed_at, b.epoch,
        (
          select string_agg(
            audit._leaf_hash(l.event), ''::bytea
            order by (l.event).xid, (l.event).timestamp, (l.event).tenant_id collate "C", (l.event).event_id
          )
          from (
            select p::public.audit_log
            from public.%1$I p
            where p.xid >= pg_snapshot_xmax(b.previous_snapshot)
              and p.xid < pg_snapshot_xmax(b.snapshot)
              and pg_visible_in_snapshot(p.xid, b.snapshot)
            union all
            select p::public.audit_log
            from public.%1$I p
            where p.xid = any (array(select pg_snapshot_xip(b.previous_snapshot)))
              and pg_visible_in_snapshot(p.xid, b.snapshot)
          ) l (event)
        )
      from (
        select next.*, sum(next.row_count) over (order by next.block_no) - next.row_count as rows_before
        from (
          select s.*
          from audit.blocks s
          where s.segment = $1 and s.block_no > greatest($2, audit._last_released_block($1))
          order by s.block_no
          limit 1000
        ) next
      ) b
      where b.rows_before < $3
      order by b.block_no
    $query$,
    'audit_log_' || to_char(p_segment, 'YYYYMM')
  )
  using p_segment, p_after_block, p_rows;
exception when undefined_table then
  return;  -- dropped meanwhile
end
$$;

comment on function audit.read_segment(date, bigint, bigint) is
  'Return the blocks of a month after p_after_block that are not released, until they hold about p_rows rows. Each has '
  'the leaf hashes of the rows that its partition holds now, in sealed order; null if there are none.';
