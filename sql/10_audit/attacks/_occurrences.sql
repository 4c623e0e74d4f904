-- In a flood, one row a window stands for many refusals and holds their number.
create function audit._occurrences(p_details jsonb) returns bigint
language sql immutable parallel safe
return case
  when p_details ? 'aggregated' and jsonb_typeof(p_details -> 'count') = 'number'
    then greatest(1, least((p_details ->> 'count')::numeric, 1000000000000))::bigint
  else 1
end;

comment on function audit._occurrences(jsonb) is
  'Return the number of events that the row with these details stands for: 1 unless it is aggregated.';
