create function audit._require_utf8() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_client_encoding() <> 'UTF8' then
    raise exception using
      errcode = 'PU500',
      message = format('hashes cover UTF-8: set client_encoding to UTF8, not %s', pg_client_encoding());
  end if;
end
$$;

comment on function audit._require_utf8() is 'Raise PU500 if text would be hashed in another encoding than UTF-8.';
