-- Trace ids of our own are UUIDs of version 7: 48 bits of milliseconds, the version, 12 fixed bits. Without those bits, one in
-- 64 random ids would have a time in it by chance. services.shared.tracing has the same mark and bounds.
-- The 10 minutes: an id from up to 5 minutes ahead is continued, and the clocks of machines differ.
create function core.trace_started_at(p_trace_id text) returns timestamptz
language sql immutable parallel safe
return case
  when p_trace_id ~ '^[0-9a-f]{12}7bea[89ab][0-9a-f]{15}$'
    and ('x' || lpad(left(p_trace_id, 12), 16, '0'))::bit(64)::bigint between 1577836800000 and 2524607999999
  then to_timestamp(('x' || lpad(left(p_trace_id, 12), 16, '0'))::bit(64)::bigint / 1000.0) - interval '10 minutes'
end;

comment on function core.trace_started_at(text) is
  'Time before which nothing of the trace was written, 10 minutes of slack taken off; null when its id does not carry a time.';
