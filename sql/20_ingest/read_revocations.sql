-- Ids alone would not identify the list: a row that was changed by hand keeps its id, but its version changes.
create function ingest.read_revocations(p_version text) returns jsonb
language sql stable security definer
set search_path = pg_catalog, pg_temp
as $$
  with current_list as materialized (
    select r.xmin::text as row_version, r.tenant_id, r.revocation_id, r.subject, r.session, r.token_id, r.issued_before
    from public.revocations r
    where r.expires_at > core.now()
  ),
  version as (
    select md5(coalesce(
      string_agg(l.revocation_id || ':' || l.row_version, ',' order by l.revocation_id), '')) as name
    from current_list l
  )
  select jsonb_build_object(
    'version', v.name,
    'revocations', (
      select coalesce(jsonb_agg(jsonb_build_object(
        'tenant_id', l.tenant_id, 'subject', l.subject, 'session', l.session, 'token_id', l.token_id,
        'issued_before', extract(epoch from l.issued_before))), '[]')
      from current_list l
    )
  )
  from version v
  where v.name is distinct from p_version
$$;

comment on function ingest.read_revocations(text) is
  'Return the revocations in force of all tenants as {version, revocations}, or null if the caller has this version.';
