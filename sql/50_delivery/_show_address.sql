-- The trigger holds for every writer of the table. The process that sealed an address has set its shown_url.
create function delivery._show_address() returns trigger
language plpgsql
set search_path = pg_catalog, pg_temp
as $$
begin
  if not delivery._is_sealed(new.config ->> 'url') then
    new.shown_url := delivery._shown_url(new.config ->> 'url');
  elsif new.shown_url !~ '^https?://[^/?#@[:space:]]+/… \([0-9a-f]{8}\)$' then
    raise exception using errcode = 'PU422', message = 'shown_url must be scheme, host and fingerprint of the sealed address';
  end if;
  return new;
end
$$;

comment on function delivery._show_address() is 'Set shown_url from the address of the channel, without its secret part.';
