-- A pair that was let in before it failed is a client that lost its footing, not a guess: an office behind one address
-- whose sessions break when the issuer changes its key. Nobody can make a foreign account such a pair without its token.
create function audit._tries_by_pair(p_after timestamptz, p_until timestamptz, p_min_accounts integer)
returns table (account text, network text, first_at timestamptz, last_at timestamptz, tries bigint)
language sql stable
as $$
  with pair as (
    select f.account, f.network, min(f.tried_at) as first_at, max(f.tried_at) as last_at, sum(f.tries)::bigint as tries
    from audit._tries(p_after, p_until) f
    group by f.account, f.network
  )
  select pair.account, pair.network, pair.first_at, pair.last_at, pair.tries
  from pair
  -- While there are too few accounts for any finding, nobody is looked up.
  where (select count(distinct p.account) from pair p) >= p_min_accounts
    and not exists (
      select from audit._admissions(pair.account, pair.first_at - interval '1 hour', pair.first_at) a
      where a.network = pair.network
    )
$$;

comment on function audit._tries_by_pair(timestamptz, timestamptz, integer) is
  'Accounts and the addresses that tried them without having been let in as them within the hour before; none while fewer '
  'than p_min_accounts were tried.';
