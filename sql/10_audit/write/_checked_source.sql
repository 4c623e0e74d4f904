create function audit._checked_source(p_source_service text, p_category text, p_action text) returns text
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if session_user = 'pulse_ui' and audit.is_foreign(p_source_service, p_category, p_action) then
    raise exception using
      errcode = '23514',
      message = format('%s may not write %s.%s as %s', session_user, p_category, p_action, p_source_service);
  end if;
  return p_source_service;
end
$$;

comment on function audit._checked_source(text, text, text) is
  'Return the source of an event that the caller composed. Raises 23514 if it belongs to another service than the '
  'login.';
