-- Text that is no address must not cost the transaction it came with, and Postgres 15 cannot ask before it casts.
create function core.current_ip_address() returns inet
language plpgsql stable parallel restricted
set search_path = pg_catalog, pg_temp
as $$
declare
  v_text text := nullif(current_setting('pulse.ip_address', true), '');
begin
  -- Most transactions come from our own services and have none: they do not pay for the block below.
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
  'Address of the client the transaction acts for, null when unset or not an address.';
