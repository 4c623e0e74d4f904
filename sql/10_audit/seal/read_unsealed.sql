-- Stable, so that every query in it sees the snapshot of the caller's statement, which audit._present() returns.
--
-- Leaves come in pieces of 2^20, complete subtrees except for the last: one value holds at most 1 GB, and one
-- transaction may have written more rows than that.
create function audit.read_unsealed(p_limit integer, p_piece integer default 1048576)
returns table (
  segment date,
  previous_snapshot text,
  snapshot text,
  row_count bigint,
  min_timestamp timestamptz,
  max_timestamp timestamptz,
  leaves bytea
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
-- Statistics of growing columns lag behind: by them, no row is newer than the last ANALYZE.
set enable_seqscan = off
set enable_bitmapscan = off
set jit = off
as $$
declare
  v_previous pg_snapshot := audit._head_snapshot();
  v_snapshot pg_snapshot := audit._present();
begin
  perform audit._require_utf8();
  if pg_snapshot_xmax(v_snapshot) < pg_snapshot_xmax(v_previous) then
    raise exception using
      errcode = 'PU500',
      message = format(
        'the last block names transaction %s and this server has only reached %s: it is not the server that was sealed, '
        'see "After a restore" in docs/audit.md',
        pg_snapshot_xmax(v_previous), pg_snapshot_xmax(v_snapshot));
  end if;
  v_snapshot := audit._cut_snapshot(v_previous, v_snapshot, p_limit);
  return query
    select
      h.segment,
      v_previous::text,
      v_snapshot::text,
      count(*),
      min(h.timestamp),
      max(h.timestamp),
      string_agg(h.leaf, ''::bytea order by h.place)
    from (
      select
        audit._segment(l.timestamp) as segment,
        l.timestamp,
        audit._leaf_hash(l) as leaf,
        row_number() over (
          partition by audit._segment(l.timestamp)
          order by l.xid, l.timestamp, l.tenant_id collate "C", l.event_id
        ) - 1 as place
      from audit._rows_between(v_previous, v_snapshot) l
    ) h
    group by h.segment, h.place / p_piece
    order by h.segment, h.place / p_piece;
end
$$;

comment on function audit.read_unsealed(integer, integer) is
  'Return the content of the next blocks, one a month: about p_limit rows or one transaction, as leaf hashes of 32 '
  'bytes each in sealed order, in pieces of p_piece (a power of two). Raises PU500 on a server whose transactions are '
  'not those that were sealed.';
