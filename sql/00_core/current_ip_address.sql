-- Text that is no address must not abort the transaction, and Postgres 15 cannot check before it casts.
create function core.current_ip_address() returns inet
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := nullif(current_setting('pulse.ip_address', true), '');
begin
  -- Most transactions come from Pulse's services and have no address. They skip the costly block below.
  if v_text is null then
    return null;
  end if;
  begin
    return v_text::inet;
  exception
    when data_exception then
      return null;
  end;
end
$$;

comment on function core.current_ip_address() is
  'Return the address of the transaction''s client, null if unset or not an address.';
