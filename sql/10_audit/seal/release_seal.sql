create function audit.release_seal(p_holder text) returns void
language sql volatile security definer
set search_path = pg_catalog, pg_temp
begin atomic
  update audit.sealer s set lease_until = '-infinity' where s.holder = p_holder;
end;

comment on function audit.release_seal(text) is
  'Give up the right to seal, so that the next sealer need not wait for the end of the lease.';
