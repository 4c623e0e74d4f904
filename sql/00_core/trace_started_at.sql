-- Pulse's own trace ids are UUIDs of version 7: 48 bits of milliseconds, the version and 12 fixed bits. Without the
-- fixed bits, one in 64 random ids would carry a time by chance. services.shared.tracing uses the same mark and bounds.
--
-- The 10 minutes cover ids from up to 5 minutes ahead, which are continued, and the differences between clocks.
create function core.trace_started_at(p_trace_id text) returns timestamptz
language sql immutable parallel safe
return case
  when p_trace_id ~ '^[0-9a-f]{12}7bea[89ab][0-9a-f]{15}$'
    and ('x' || lpad(left(p_trace_id, 12), 16, '0'))::bit(64)::bigint between 1577836800000 and 2524607999999
  then to_timestamp(('x' || lpad(left(p_trace_id, 12), 16, '0'))::bit(64)::bigint / 1000.0) - interval '10 minutes'
end;

comment on function core.trace_started_at(text) is
  'Return the time before which the trace wrote nothing, with 10 minutes of slack; null if its id carries no time.';
