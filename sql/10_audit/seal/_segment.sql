create function audit._segment(p_timestamp timestamptz) returns date
language sql immutable parallel safe
return date_trunc('month', p_timestamp at time zone 'UTC')::date;

comment on function audit._segment(timestamptz) is
  'Return the first day of the UTC month that a row belongs to. Blocks and retention use this month, wherever the row '
  'is stored.';
