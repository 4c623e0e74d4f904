-- Plain, so that it is inlined: what is short pays for one comparison.
create function audit._shortened(p_value jsonb, p_bytes integer) returns jsonb
language sql stable parallel safe
return case
  when pg_column_size(p_value) > p_bytes
    then jsonb_build_object('truncated_characters', length(p_value #>> '{}'), 'start', left(p_value #>> '{}', 2000))
  else p_value
end;

comment on function audit._shortened(jsonb, integer) is
  'The value or, when it is larger than so many bytes, the beginning of its text and how long that is.';
