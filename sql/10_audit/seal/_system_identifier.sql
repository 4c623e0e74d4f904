-- Immutable, so that a plan computes it once instead of reading the control file in each statement. Plans end with the
-- session, and a session does not outlive its server.
create function audit._system_identifier() returns bigint
language plpgsql immutable
set search_path = pg_catalog, pg_temp
as $$
begin
  if has_function_privilege(to_regprocedure('pg_catalog.pg_control_system()'), 'execute') then
    return (select c.system_identifier from pg_control_system() c);
  end if;
  return null;
end
$$;

comment on function audit._system_identifier() is
  'Return the system identifier of the server; null if the role may not read it.';
