-- The row lock makes two transactions that add rows for a tenant take turns, so they cannot pass the limit together.
create function core._count_usage(p_tenant_id text, p_limit_name text, p_added bigint) returns bigint
language sql volatile
set search_path = pg_catalog, pg_temp
as $$
  insert into public.tenant_usage as u (tenant_id, limit_name, used)
  values (p_tenant_id, p_limit_name, p_added)
  on conflict (tenant_id, limit_name) do update set used = u.used + excluded.used
  returning u.used
$$;

comment on function core._count_usage(text, text, bigint) is
  'Add to the rows that count against a limit and return their number. Locks the count until the end of the '
  'transaction.';
