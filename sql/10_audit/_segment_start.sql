create function audit._segment_start(p_segment date) returns timestamptz
language sql immutable parallel safe
return p_segment::timestamp at time zone 'UTC';

comment on function audit._segment_start(date) is 'The first moment of a segment.';
