create function audit._timeline() returns integer
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  return ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer;
exception when others then
  return null;  -- a standby, or a managed server that hides its log
end
$$;

comment on function audit._timeline() is
  'Return the timeline that the server writes; null on a standby and if the role may not read it.';
