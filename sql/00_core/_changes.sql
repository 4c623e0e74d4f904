create function core._changes(p_old jsonb, p_new jsonb) returns jsonb
language sql immutable parallel safe
set search_path = pg_catalog, pg_temp
return (
  select coalesce(jsonb_object_agg(o.key, jsonb_build_array(o.value, n.value)), '{}')
  from jsonb_each(p_old) o
  join jsonb_each(p_new) n on n.key = o.key
  where o.value is distinct from n.value
    and o.key <> 'updated_at'
);

comment on function core._changes(jsonb, jsonb) is
  'Return the differences between two versions of a row, {column: [old, new]}; {} if there are none.';
