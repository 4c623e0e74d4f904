create function audit._refuse_foreign() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  raise exception using
    errcode = '23514',
    message = format('%s may not write %s as %s', current_user, new.event_type, new.source_service);
end
$$;

comment on function audit._refuse_foreign() is
  'Raise 23514: the login of a service does not write events of another service.';
