create function audit._touches_segment(p_segment date, p_from timestamptz, p_to timestamptz) returns boolean
language sql immutable parallel safe
return p_from < (p_segment + interval '1 month') at time zone 'UTC' and p_to > p_segment::timestamp at time zone 'UTC';

comment on function audit._touches_segment(date, timestamptz, timestamptz) is
  'Return whether a month overlaps the range from p_from to before p_to.';
