-- Reads few rows first and four times as many each time that was not enough, until the page is full, the log ends or the
-- time is over. If an index finds few rows, they are read at once, wherever they lie. A page is limited in bytes because
-- one value holds its JSON.
create function audit._read_sealed(
  p_tenant_id text,
  p_filter jsonb,
  p_place jsonb,
  p_newest_first boolean,
  p_limit integer,
  p_budget interval default '250 ms'
) returns jsonb
language plpgsql stable
set search_path = pg_catalog, pg_temp
set timezone = 'UTC'
-- Each filter has its own plan. Statistics of growing columns lag behind: by them, no row is newer than the last
-- ANALYZE.
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  c_indexed_rows constant integer := 10000;
  c_window_rows constant integer := 100000;
  c_page_bytes constant bigint := 4 * 1024 * 1024;
  v_deadline constant timestamptz := clock_timestamp() + p_budget;
  v_rows integer := least(4 * p_limit, c_window_rows);
  v_end bigint;
  v_sealed_at timestamptz;
  v_place jsonb;
  v_next jsonb;
  v_indexed integer;
  v_event jsonb;
  v_events jsonb[] := '{}';
  v_bytes bigint := 0;
  v_is_full boolean := false;
begin
  select b.block_no + 1, b.sealed_at into v_end, v_sealed_at from audit.blocks b order by b.block_no desc limit 1;
  v_end := coalesce(v_end, 0);
  v_place := coalesce(p_place, audit._start_place(p_filter, p_newest_first, v_end));
  if (v_place ->> 0)::bigint not between 0 and v_end then
    raise exception using errcode = 'PU422', message = format('the place lies beyond the %s blocks of this log', v_end);
  end if;
  loop
    v_next := audit._next_window(v_place, p_newest_first, v_rows);
    exit when v_next is null;
    if v_indexed > 0 then
      v_next := audit._place(case when p_newest_first then 0 else v_end end);
    end if;
    for v_event in
      select event
      from audit._read_window(
        p_tenant_id,
        p_filter,
        case when p_newest_first then v_next else v_place end,
        case when p_newest_first then v_place else v_next end,
        p_newest_first,
        p_limit - cardinality(v_events),
        c_page_bytes - v_bytes,
        coalesce(v_indexed, 0)
      ) as event
    loop
      v_is_full := cardinality(v_events) = p_limit or v_bytes >= c_page_bytes;
      exit when v_is_full;
      v_events := v_events || v_event;
      v_bytes := v_bytes + pg_column_size(v_event);
    end loop;
    v_place := v_next;
    if v_is_full then
      v_event := v_events[cardinality(v_events)];
      v_place := jsonb_build_array(
        v_event -> 'block_no', v_event -> 'xid', v_event -> 'timestamp', v_event -> 'tenant_id', v_event -> 'event_id');
    end if;
    exit when v_is_full or cardinality(v_events) = p_limit or v_bytes >= c_page_bytes or clock_timestamp() > v_deadline;
    if v_indexed is null then
      select case when count(*) > c_indexed_rows then 0 else c_indexed_rows end into v_indexed
      from audit._indexed_rows(p_tenant_id, p_filter, c_indexed_rows + 1);
    end if;
    v_rows := least(4 * v_rows, c_window_rows);
  end loop;
  return jsonb_build_object(
    'events', to_jsonb(v_events),
    'place', v_place,
    'is_last', v_place = audit._place(case when p_newest_first then 0 else v_end end),
    'end', audit._place(v_end),
    'sealed_at', v_sealed_at
  );
end
$$;

comment on function audit._read_sealed(text, jsonb, jsonb, boolean, integer, interval) is
  'Return sealed events from a place on, oldest or newest first. A null tenant means all tenants, a null place the '
  'first end. A page with fewer events took too long or holds 4 MB, unless is_last. The answer has the events, the next '
  'place, the end of the log and the sealing time of the newest block.';
