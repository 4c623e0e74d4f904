create function audit.read_leaves(
  p_previous text,
  p_snapshot text,
  p_first_segment date default null,
  p_last_segment date default null
) returns table (xid bigint, segment date, leaves bytea)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set enable_seqscan = off
set jit = off
as $$
begin
  perform audit._require_utf8();
  return query
    select
      h.xid::text::bigint,
      h.segment,
      string_agg(h.leaf, ''::bytea order by h.timestamp, h.tenant_id collate "C", h.event_id)
    from (
      select l.xid, audit._segment(l.timestamp) as segment, l.timestamp, l.tenant_id, l.event_id, audit._leaf_hash(l) as leaf
      from audit._rows_between(p_previous::pg_snapshot, p_snapshot::pg_snapshot) l
      -- Written so that no index on timestamp fits. The index on xid is the right one, whatever the statistics say.
      where audit._segment(l.timestamp) between coalesce(p_first_segment, '-infinity') and coalesce(p_last_segment, 'infinity')
      -- Hash before sorting, so that the sorted rows are narrow.
      offset 0
    ) h
    group by h.xid, h.segment
    order by h.xid, h.segment;
end
$$;

comment on function audit.read_leaves(text, text, date, date) is
  'Hash anew the rows that the second snapshot sees and the first does not. Return for each transaction and month the '
  'leaf hashes, 32 bytes each, in sealed order. The months may be bounded.';
