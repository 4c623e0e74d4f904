create function delivery._shown_url(p_url text) returns text
language sql
stable
set search_path = pg_catalog, pg_temp
as $$
  select substring(p_url from '^(https?://[^/?#@[:space:]]+)(?:[/?#].*)?$') || '/… ('
    || left(encode(sha256(i.fingerprint_key || convert_to(p_url, 'UTF8')), 'hex'), 8) || ')'
  from public.installation i
$$;

comment on function delivery._shown_url(text) is
  'Return the part of an address that may be shown: scheme, host, and a fingerprint instead of the secret rest. Return null '
  'unless it is a plain address.';
