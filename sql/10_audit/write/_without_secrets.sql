create function audit._without_secrets(p_details jsonb) returns jsonb
language plpgsql stable parallel safe
set search_path = pg_catalog, pg_temp
as $$
declare
  c_pattern constant text := 'token|passw|pwd|secret|cookie|authori[sz]ation|credential|api_?key|(^|[_.-])key$';
begin
  if p_details::text !~* 'token|passw|pwd|secret|cookie|authori|credential|key"' then
    return p_details;
  end if;
  return p_details || (
    select coalesce(jsonb_object_agg(d.key, '[redacted]'::text), '{}')
    from jsonb_each(p_details) d
    where d.key ~* c_pattern and jsonb_typeof(d.value) not in ('null', 'boolean')
  );
end
$$;

comment on function audit._without_secrets(jsonb) is
  'Return details in which the values of keys that name a secret are redacted, by the same names as '
  'services/shared/audit_writer/cleaning.py.';
