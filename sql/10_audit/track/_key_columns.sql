create function audit._key_columns(p_table regclass) returns text[]
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
declare
  v_columns text[];
begin
  select array_agg(a.attname order by k.place) into v_columns
  from pg_constraint c
  cross join unnest(c.conkey) with ordinality as k (number, place)
  join pg_attribute a on a.attrelid = c.conrelid and a.attnum = k.number
  where c.conrelid = p_table and c.contype = 'p';
  if v_columns is null then
    raise exception using
      errcode = 'PU422', message = format('%s has no primary key, so its rows cannot be distinguished', p_table);
  end if;
  return case when v_columns = '{tenant_id}' then v_columns else array_remove(v_columns, 'tenant_id') end;
end
$$;

comment on function audit._key_columns(regclass) is
  'Return the columns of a table''s primary key in their order, without the tenant. Raises PU422 if there is none.';
