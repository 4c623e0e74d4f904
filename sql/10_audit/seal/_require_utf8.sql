create function audit._require_utf8() returns void
language plpgsql stable
set search_path = pg_catalog, pg_temp
as $$
begin
  if pg_client_encoding() <> 'UTF8' then
    raise exception using
      errcode = 'PU500',
      message = format('hashes are made over UTF-8; set client_encoding to UTF8, it is %s', pg_client_encoding());
  end if;
end
$$;

comment on function audit._require_utf8() is 'Raises PU500 when texts would be hashed in another encoding.';
