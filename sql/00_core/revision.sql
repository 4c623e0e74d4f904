create function core.revision() returns text
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select version_num from public.alembic_version;
end;

comment on function core.revision() is
  'Return the revision of the database. Services compare it with their own at start.';
