-- In PL/pgSQL, because SQL that names its argument several times is not inlined and costs more to call.
create function audit._shortened(p_value jsonb, p_bytes integer) returns jsonb
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_column_size(p_value) > p_bytes then
    return jsonb_build_object('truncated_characters', length(p_value #>> '{}'), 'start', left(p_value #>> '{}', 2000));
  end if;
  return p_value;
end
$$;

comment on function audit._shortened(jsonb, integer) is
  'Return the value or, if it is larger than p_bytes, the beginning of its text and the text''s length.';
