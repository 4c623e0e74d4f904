-- Without SET, so that it can be inlined: short values cost one comparison.
create function audit._shortened(p_value jsonb, p_bytes integer) returns jsonb
language sql stable parallel safe
return case
  when pg_column_size(p_value) > p_bytes
    then jsonb_build_object('truncated_characters', length(p_value #>> '{}'), 'start', left(p_value #>> '{}', 2000))
  else p_value
end;

comment on function audit._shortened(jsonb, integer) is
  'Return the value or, if it is larger than p_bytes, the beginning of its text and the text''s length.';
