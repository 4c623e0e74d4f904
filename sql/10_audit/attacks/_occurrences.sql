-- A flood of refusals gives way to one row a window, which tells how many it stands for.
create function audit._occurrences(p_details jsonb) returns bigint
language sql immutable parallel safe
return case
  when p_details ? 'aggregated' and jsonb_typeof(p_details -> 'count') = 'number'
    then greatest(1, least((p_details ->> 'count')::numeric, 1000000000000))::bigint
  else 1
end;

comment on function audit._occurrences(jsonb) is 'How many events the row with these details stands for; 1 unless it is aggregated.';
