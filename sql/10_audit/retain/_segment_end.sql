create function audit._segment_end(p_segment date) returns timestamptz
language sql immutable parallel safe
return (p_segment + interval '1 month') at time zone 'UTC';

comment on function audit._segment_end(date) is 'Return the first moment after a month.';
