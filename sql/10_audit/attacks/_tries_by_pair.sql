-- A pair of account and address that was let in before its first failure is a client with a fault, not an attacker: for
-- example an office behind one address whose sessions break when the issuer changes its key. An attacker cannot make a
-- foreign account such a pair without its token.
create function audit._tries_by_pair(p_after timestamptz, p_until timestamptz, p_min_accounts integer)
returns table (account text, network text, first_at timestamptz, last_at timestamptz, tries bigint)
language sql stable
as $$
  with pair as materialized (
    select f.account, f.network, min(f.tried_at) as first_at, max(f.tried_at) as last_at, sum(f.tries)::bigint as tries
    from audit._tries(p_after, p_until) f
    group by f.account, f.network
  ), enough as materialized (
    -- With too few accounts for any finding, no admissions are read.
    select array_agg(distinct p.account) as accounts from pair p having count(distinct p.account) >= p_min_accounts
  ), known as materialized (
    select a.account, a.network, min(a.admitted_at) as first_at
    from audit._admissions((select e.accounts from enough e), p_after - interval '1 hour', p_until) a
    group by a.account, a.network
  )
  select pair.account, pair.network, pair.first_at, pair.last_at, pair.tries
  from pair
  left join known on known.account = pair.account and known.network = pair.network
  where exists (select from enough)
    and (known.first_at is null or known.first_at > pair.first_at)
$$;

comment on function audit._tries_by_pair(timestamptz, timestamptz, integer) is
  'Return accounts with the addresses that tried them and were not let in as them before, looking back one hour before '
  'p_after. Returns no row if fewer than p_min_accounts were tried.';
