-- While others guess at an account, its user is let in from the user's own address before and after. That is no finding,
-- even if the user's client failed once or twice meanwhile. An admission counts if its address alone failed often
-- enough, or if the account was not let in from there before.
--
-- Statistics lag behind an attack. A nested loop that was planned for a few pairs would take minutes.
create function audit._success_after_failures(p_at timestamptz)
returns table (
  kind text, subject text, first_at timestamptz, last_at timestamptz, failures bigint, accounts bigint, addresses bigint
)
language plpgsql stable security definer
set search_path = pg_catalog, pg_temp
set plan_cache_mode = force_custom_plan
set enable_nestloop = off
set jit = off
as $$
#variable_conflict use_column
declare
  v_threshold record;
begin
  select * into strict v_threshold from audit.attack_thresholds t where t.kind = 'success_after_failures';
  return query
    with tried as (
      select
        f.*,
        sum(f.tries) over (partition by f.account order by f.tried_at, f.network) as so_far,
        sum(f.tries) over (partition by f.account, f.network) as from_there
      from audit._tries(p_at - v_threshold.time_window, p_at) f
    ), suspect as materialized (
      select
        f.account, min(f.tried_at) as first_at, sum(f.tries)::bigint as failures, count(distinct f.network) as networks,
        array_agg(distinct f.network) filter (where f.from_there >= v_threshold.min_failures) as persistent,
        min(f.tried_at) filter (where f.so_far >= v_threshold.min_failures) as many_at
      from tried f
      group by f.account
      having sum(f.tries) >= v_threshold.min_failures
    ), admission as materialized (
      -- Reaches one window past the moment, so that an admission that was recorded late is found with its failures.
      select a.*, min(a.admitted_at) over (partition by a.account, a.network) as since
      from audit._admissions(
        (select array_agg(s.account) from suspect s),
        p_at - v_threshold.time_window - interval '1 hour',
        p_at + v_threshold.time_window
      ) a
    )
    select v_threshold.kind, s.account, s.first_at, max(a.admitted_at), s.failures, 1::bigint, s.networks
    from suspect s
    join admission a on a.account = s.account
    where a.admitted_at > s.many_at
      and (a.network = any (s.persistent) or a.since > s.first_at)
    group by s.account, s.first_at, s.failures, s.networks;
end
$$;

comment on function audit._success_after_failures(timestamptz) is
  'Find accounts that were let in after many failed tries in the window that ends at a moment.';
