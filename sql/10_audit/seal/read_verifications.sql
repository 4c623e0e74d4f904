create function audit.read_verifications()
returns table (
  scope text, verified_at timestamptz, age_seconds double precision, row_count bigint, fault_count bigint, message text
)
language sql stable security definer
set search_path = pg_catalog, pg_temp
begin atomic
  select
    v.scope, v.verified_at, extract(epoch from core.now() - v.verified_at)::double precision, v.row_count, v.fault_count,
    v.message
  from audit.verifications v
  order by v.scope;
end;

comment on function audit.read_verifications() is
  'Return the newest verification of each scope; no row before the first.';
