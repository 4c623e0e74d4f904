-- Stable, so that every query in it sees what the caller's statement sees, and pg_current_snapshot() says what that is.
create function audit.read_unsealed(p_limit integer)
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
-- Statistics of a growing column are always behind: by them, nothing is newer than the last ANALYZE.
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  v_previous pg_snapshot := audit._head_snapshot();
  v_snapshot pg_snapshot := pg_current_snapshot();
begin
  perform audit._require_utf8();
  if pg_snapshot_xmax(v_snapshot) < pg_snapshot_xmax(v_previous) then
    raise exception using
      errcode = 'PU500',
      message = format(
        'the last block names transaction %s and this server has only reached %s: it is not the server that was sealed, '
        'see docs/audit.md about restoring a dump',
        pg_snapshot_xmax(v_previous), pg_snapshot_xmax(v_snapshot));
  end if;
  v_snapshot := audit._cut_snapshot(v_previous, v_snapshot, p_limit);
  return query
    select
      audit._segment(l.timestamp),
      v_previous::text,
      v_snapshot::text,
      count(*),
      min(l.timestamp),
      max(l.timestamp),
      string_agg(audit._leaf_hash(l), ''::bytea order by l.xid, l.timestamp, l.tenant_id collate "C", l.event_id)
    from audit._rows_between(v_previous, v_snapshot) l
    group by 1
    order by 1;
end
$$;

comment on function audit.read_unsealed(integer) is
  'What the next blocks hold, one a month: about p_limit rows or one transaction, as leaf hashes of 32 bytes each in '
  'sealed order. Raises PU500 on a server whose transactions are not those that were sealed.';
