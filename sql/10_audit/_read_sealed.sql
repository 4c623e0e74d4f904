-- Looks at few rows first and at four times as many each time that was not enough, until the page is full, the log ends
-- or the time is over; but what an index finds few of is read at once, wherever it lies.
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
-- Each filter has its own plan. Statistics of growing columns are always behind: by them, nothing is newer than the
-- last ANALYZE.
set plan_cache_mode = force_custom_plan
set enable_seqscan = off
set enable_bitmapscan = off
as $$
declare
  c_indexed_rows constant integer := 10000;
  c_window_rows constant integer := 100000;
  v_deadline constant timestamptz := clock_timestamp() + p_budget;
  v_rows integer := least(4 * p_limit, c_window_rows);
  v_end bigint;
  v_sealed_at timestamptz;
  v_place jsonb;
  v_next jsonb;
  v_indexed integer;
  v_found jsonb;
  v_last jsonb;
  v_events jsonb := '[]';
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
    select coalesce(jsonb_agg(event), '[]') into v_found
    from audit._read_window(
      p_tenant_id,
      p_filter,
      case when p_newest_first then v_next else v_place end,
      case when p_newest_first then v_place else v_next end,
      p_newest_first,
      p_limit - jsonb_array_length(v_events),
      coalesce(v_indexed, 0)
    ) as event;
    v_place := v_next;
    if jsonb_array_length(v_events) + jsonb_array_length(v_found) > p_limit then
      v_found := v_found - (-1);
      v_last := v_found -> -1;
      v_place := jsonb_build_array(
        v_last -> 'block_no', v_last -> 'xid', v_last -> 'timestamp', v_last -> 'tenant_id', v_last -> 'event_id');
    end if;
    v_events := v_events || v_found;
    exit when jsonb_array_length(v_events) = p_limit or clock_timestamp() > v_deadline;
    if v_indexed is null then
      select case when count(*) > c_indexed_rows then 0 else c_indexed_rows end into v_indexed
      from audit._indexed_rows(p_tenant_id, p_filter, c_indexed_rows + 1);
    end if;
    v_rows := least(4 * v_rows, c_window_rows);
  end loop;
  return jsonb_build_object(
    'events', v_events,
    'place', v_place,
    'is_last', v_place = audit._place(case when p_newest_first then 0 else v_end end),
    'end', audit._place(v_end),
    'sealed_at', v_sealed_at
  );
end
$$;

comment on function audit._read_sealed(text, jsonb, jsonb, boolean, integer, interval) is
  'Sealed events from a place on, oldest or newest first; null: of all tenants, from the first end. A short page is one '
  'that took too long, unless is_last. Gives the events, the place to go on from, the end of the log and when its newest '
  'block was sealed.';
