create function delivery.fingerprint_key() returns bytea
language sql
stable
security definer
set search_path = pg_catalog, pg_temp
as $$
  select i.fingerprint_key from public.installation i
$$;

comment on function delivery.fingerprint_key() is
  'Return the key of the fingerprints of addresses, for the process that seals an address before it writes it.';
