create function audit._segment(p_timestamp timestamptz) returns date
language sql immutable parallel safe
return date_trunc('month', p_timestamp at time zone 'UTC')::date;

comment on function audit._segment(timestamptz) is
  'The UTC month a row belongs to, as its first day: blocks and retention go by it, wherever the row is stored.';
