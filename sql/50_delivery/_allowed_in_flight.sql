-- No SET clauses, so that the planner inlines it.
create function delivery._allowed_in_flight(p_limits integer, p_deliveries integer, p_channel_limit integer) returns integer
language sql
immutable
return case
  when coalesce(p_limits, 0) = 0 then p_channel_limit
  else least(p_channel_limit, greatest(p_deliveries, 1))
end;

comment on function delivery._allowed_in_flight(integer, integer, integer) is
  'Return the number of requests that a channel may have in flight: its limit, or after a pause one probe and then as many as '
  'were delivered since.';
