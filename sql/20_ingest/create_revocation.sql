create function ingest.create_revocation(p_body jsonb) returns jsonb
language plpgsql volatile security definer
set search_path = pg_catalog, pg_temp
as $$
declare
  v_most constant integer := 1000;
  v_tenant_id text := core.require_tenant();
  v_now timestamptz := clock_timestamp();
  v_seconds double precision := (p_body ->> 'expires_in_seconds')::double precision;
  v_new public.revocations := jsonb_populate_record(
    null::public.revocations,
    jsonb_strip_nulls(p_body) - array['tenant_id', 'revocation_id', 'created_at', 'created_by', 'expires_at']
  );
begin
  if v_seconds is null or not v_seconds between 1 and 3660 * 86400.0 then
    raise exception using errcode = 'PU422', message = 'a revocation lasts for 1 second to 3,660 days';
  elsif num_nonnulls(v_new.subject, v_new.session, v_new.token_id, v_new.issued_before) = 0 then
    raise exception using
      errcode = 'PU422', message = 'name the tokens: subject, session, token_id, issued_before or several of these';
  elsif v_new.issued_before > v_now + interval '1 minute' then
    raise exception using errcode = 'PU422', message = 'issued_before must not lie in the future';
  end if;
  -- The list is bounded because every API process holds it in memory. The lock keeps two transactions from passing the
  -- limit together. No login can lock this row directly.
  perform from public.tenants t where t.tenant_id = v_tenant_id for no key update;
  if (select count(*) from public.revocations r where r.tenant_id = v_tenant_id and r.expires_at > v_now) >= v_most then
    raise exception using errcode = 'PU409', message = format(
      'the tenant has %s revocations, which is the most: lift some, or revoke all tokens with issued_before', v_most);
  end if;
  insert into public.revocations as r (
    tenant_id, subject, session, token_id, issued_before, reason, created_at, created_by, expires_at
  )
  values (
    v_tenant_id, v_new.subject, v_new.session, v_new.token_id, v_new.issued_before, v_new.reason, v_now,
    core.current_actor_id(), v_now + make_interval(secs => v_seconds)
  )
  returning r.* into v_new;
  return (select to_jsonb(r) from api.revocations r where r.revocation_id = v_new.revocation_id);
end
$$;

comment on function ingest.create_revocation(jsonb) is
  'Refuse the user tokens that meet every named condition {subject, session, token_id, issued_before, reason, '
  'expires_in_seconds} and return the revocation as the API shows it. Raise PU422 for an invalid condition, PU409 if the '
  'tenant has 1,000 revocations in force.';
