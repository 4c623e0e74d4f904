-- Statistics lag behind an attack. A nested loop that was planned for a few pairs would take minutes.
create function audit._password_spraying(p_at timestamptz)
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
  select * into strict v_threshold from audit.attack_thresholds t where t.kind = 'password_spraying';
  return query
    select
      v_threshold.kind, 'all', min(p.first_at), max(p.last_at), sum(p.tries)::bigint, count(distinct p.account),
      count(distinct p.network)
    from (
      select pair.*, sum(pair.tries) over (partition by pair.account) as tries_in_all
      from audit._tries_by_pair(p_at - v_threshold.time_window, p_at, v_threshold.min_accounts) pair
    ) p
    where p.tries_in_all between v_threshold.min_tries and v_threshold.max_tries
    having count(distinct p.account) >= v_threshold.min_accounts;
end
$$;

comment on function audit._password_spraying(timestamptz) is
  'Find many accounts with a few failed tries each, from any addresses, in the window that ends at a moment.';
