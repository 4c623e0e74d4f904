-- The only definition of the trail's order. The rows between two places are those between two snapshots. The block of a
-- transaction is looked up once, however many rows it has, hence the materialized query. One extra row shows that there
-- are more. Large values are fetched, and JSON is built, for the returned rows only, a few at a time.
create function audit._read_window(
  p_tenant_id text,
  p_filter jsonb,
  p_low jsonb,
  p_high jsonb,
  p_newest_first boolean,
  p_limit integer,
  p_bytes bigint,
  p_indexed_rows integer default 0
) returns setof jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_first bigint := p_low ->> 0;
  v_last bigint := (p_high ->> 0)::bigint - (p_high ->> 1 = '0')::integer;
  v_low_xid xid8 := case when v_first = v_last then (p_low ->> 1)::xid8 else '0' end;
  v_high_xid xid8 := case when v_first = v_last and p_high ->> 1 <> '0' then p_high ->> 1 else '18446744073709551615' end;
  v_previous pg_snapshot;
  v_snapshot pg_snapshot;
  v_since timestamptz;
  v_until timestamptz;
  v_event jsonb;
  v_bytes bigint := 0;
begin
  select min(b.min_timestamp), max(b.max_timestamp) into v_since, v_until
  from audit.blocks b
  where b.block_no between v_first and v_last
    and (p_filter ->> 'since' is null or b.max_timestamp >= (p_filter ->> 'since')::timestamptz)
    and (p_filter ->> 'until' is null or b.min_timestamp < (p_filter ->> 'until')::timestamptz);
  if v_since is null then
    return;
  end if;
  select b.previous_snapshot into v_previous from audit.blocks b where b.block_no = v_first;
  select b.snapshot into v_snapshot from audit.blocks b where b.block_no = v_last;
  for v_event in
    with candidate as materialized (
      select l.*
      from audit._rows_between(v_previous, v_snapshot) l
      where p_indexed_rows = 0
        and (p_tenant_id is null or l.tenant_id = p_tenant_id)
        and l.timestamp between v_since and v_until
        and l.xid between v_low_xid and v_high_xid
        and audit._matches(l, p_filter)
      union all
      select l.*
      from audit._indexed_rows(p_tenant_id, p_filter, p_indexed_rows) l
      where p_indexed_rows > 0 and audit._matches(l, p_filter)
    ),
    written as (
      select distinct c.xid, audit._segment(c.timestamp) as segment from candidate c
    ),
    sealed as materialized (
      select w.xid, w.segment, b.block_no
      from written w
      cross join lateral (
        select b.block_no, b.previous_snapshot
        from audit.blocks b
        where b.segment = w.segment
          and b.snapshot_xmax > w.xid
          -- Keeps the index of block_no out, which would read each block of the window for each transaction.
          and b.block_no + 0 between v_first and v_last
          and pg_visible_in_snapshot(w.xid, b.snapshot)
        order by b.snapshot_xmax, b.block_no
        limit 1
      ) b
      where not pg_visible_in_snapshot(w.xid, b.previous_snapshot)
    ),
    ordered as (
      select
        c.*,
        s.block_no,
        row_number() over (order by s.block_no, c.xid, c.timestamp, c.tenant_id collate "C", c.event_id) as number
      from candidate c
      join sealed s on s.xid = c.xid and s.segment = audit._segment(c.timestamp)
      where (s.block_no, c.xid, c.timestamp, c.tenant_id collate "C", c.event_id)
        > ((p_low ->> 0)::bigint, (p_low ->> 1)::xid8, (p_low ->> 2)::timestamptz, p_low ->> 3, (p_low ->> 4)::uuid)
        and (s.block_no, c.xid, c.timestamp, c.tenant_id collate "C", c.event_id)
        < ((p_high ->> 0)::bigint, (p_high ->> 1)::xid8, (p_high ->> 2)::timestamptz, p_high ->> 3, (p_high ->> 4)::uuid)
    )
    select to_jsonb(w) - 'number' || jsonb_build_object('ip_address', host(w.ip_address))
    from (
      select o.*
      from ordered o
      order by case when p_newest_first then -o.number else o.number end
      limit p_limit + 1
    ) w
  loop
    return next v_event;
    exit when v_bytes >= p_bytes;
    v_bytes := v_bytes + pg_column_size(v_event);
  end loop;
end
$$;

comment on function audit._read_window(text, jsonb, jsonb, jsonb, boolean, integer, bigint, integer) is
  'Return the events between two places, both exclusive, in sealed order. A null tenant means all tenants. Returns at '
  'most p_limit events and about p_bytes bytes, and one more event if there are more. With p_indexed_rows it searches '
  'that many rows of audit._indexed_rows, else all rows of the blocks.';
