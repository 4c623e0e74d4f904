create function core.installation_id() returns uuid
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  select i.installation_id from public.installation i
$$;

comment on function core.installation_id() is 'Return the random id of this installation.';
